"""Buffers as observable instruments of OpenTelemetry, with opentelemetry-api.

::

    from opentelemetry.metrics import get_meter
    from mbframework.metrics.otel import BufferInstruments

    instruments = BufferInstruments(get_meter("outbox"), buffer, "/var/lib/app/another-buffer")

Promises: the names are those of Prometheus, counters without their ``_total``, which its exporters add. A collection
never fails for what it finds, and reads each buffer once, however many instruments there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from mbframework.metrics.catalogue import METRICS, Metric, Unit
from mbframework.metrics.samples import Sample, samples_of
from mbframework.metrics.sources import PATIENCE_S, SourceArgument, Sources

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
except ModuleNotFoundError as error:
    raise ImportError(
        "OpenTelemetry metrics need opentelemetry-api, not installed here; run: pip install 'mbframework[otel]'",
        name=error.name,
    ) from error

#: Seconds within which instruments are taken to be asked by one collection.
_TOGETHER_S = 0.5
_UNITS: dict[Unit, str] = {"": "1", "messages": "{message}", "bytes": "By", "seconds": "s"}


class BufferInstruments:
    """Instruments of ``meter`` for buffers of this process, directories of others, or both. Any thread.

    :param sources: a MessageBuffer gives the lane that it writes to, a path all lanes of that directory.
    :param patience_s: seconds that a collection waits at most for all of them together.
    :raises ConfigurationError: something else was given.
    """

    def __init__(self, meter: Meter, *sources: SourceArgument, patience_s: float = PATIENCE_S) -> None:
        self._sources = Sources(sources, patience_s)
        self._lock = threading.Lock()
        self._known: tuple[float, dict[Metric, list[Sample]]] | None = None
        for metric in METRICS:
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(
                metric.name.removesuffix("_total"),
                callbacks=[self._callback(metric)],
                unit=_UNITS[metric.unit],
                description=metric.help,
            )

    def add(self, source: SourceArgument) -> None:
        """One more buffer. Raises ConfigurationError: it is neither a path nor a buffer."""
        self._sources.add(source)

    def remove(self, source: SourceArgument) -> None:
        """One buffer less; a meter keeps its instruments, and one without buffers observes nothing."""
        self._sources.remove(source)

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for sample in self._samples()[metric]:
                yield Observation(sample.value, dict(zip(metric.labels, sample.labels, strict=True)))

        return observe

    def _samples(self) -> dict[Metric, list[Sample]]:
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > _TOGETHER_S:
                found = samples_of(self._sources.read())
                self._known = time.monotonic(), found
            return self._known[1]
