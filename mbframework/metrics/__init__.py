"""The figures of buffers for systems that collect metrics.

:mod:`~mbframework.metrics.catalogue` says which there are, :mod:`~mbframework.metrics.sources` reads buffers, and
:mod:`~mbframework.metrics.samples` makes samples of what was read. Two libraries are served, each in a module of its
own: :mod:`~mbframework.metrics.prometheus` (``pip install 'mbframework[prometheus]'``) and
:mod:`~mbframework.metrics.otel` (``pip install 'mbframework[otel]'``). See docs/observability.md.
"""
