"""Buffers in a Prometheus registry, with prometheus-client.

::

    from prometheus_client import REGISTRY
    from mbframework.metrics.prometheus import BufferCollector

    REGISTRY.register(BufferCollector(buffer, "/var/lib/app/another-buffer"))

Promises: a scrape never fails for what it finds: a directory that cannot be read is ``mbframework_up 0``, and a buffer
of which a number is not known lacks that sample. One collector serves any number of buffers; a registry takes one.
"""

from __future__ import annotations

from collections.abc import Iterator

from mbframework.metrics.catalogue import METRICS, Metric
from mbframework.metrics.samples import samples_of
from mbframework.metrics.sources import PATIENCE_S, SourceArgument, Sources

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise ImportError(
        "Prometheus metrics need prometheus-client, not installed here; run: pip install 'mbframework[prometheus]'",
        name=error.name,
    ) from error


class BufferCollector(Collector):
    """Buffers of this process, directories of others, or both. Any thread.

    :param sources: a MessageBuffer gives the lane that it writes to, a path all lanes of that directory.
    :param patience_s: seconds that a scrape waits at most for all of them together.
    :raises ConfigurationError: something else was given.
    """

    def __init__(self, *sources: SourceArgument, patience_s: float = PATIENCE_S) -> None:
        self._sources = Sources(sources, patience_s)

    def add(self, source: SourceArgument) -> None:
        """One more buffer. Raises ConfigurationError: it is neither a path nor a buffer."""
        self._sources.add(source)

    def remove(self, source: SourceArgument) -> None:
        """One buffer less."""
        self._sources.remove(source)

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The families without samples, by which a registry knows that a second collector would repeat them."""
        return map(_family, METRICS)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """What is true now."""
        for metric, samples in samples_of(self._sources.read()).items():
            family = _family(metric)
            for sample in samples:
                family.add_metric(sample.labels, sample.value)
            yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.help, labels=metric.labels)
