"""The instruments: what a meter is asked to create, and what their callbacks observe.

The library's API is what a program gives; its SDK, where it is installed, collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider
from opentelemetry.metrics import CallbackOptions, NoOpMeter, Observation

from mbframework import MessageBuffer
from mbframework.metrics import otel
from mbframework.metrics.catalogue import METRICS
from mbframework.metrics.otel import BufferInstruments
from tests.engine.rig import FAST
from tests.monitor.lanes import make_lane, move_seek

Callback = Callable[[CallbackOptions], Iterable[Observation]]


class Meter(NoOpMeter):
    """Keeps what is created, and asks for it."""

    def __init__(self) -> None:
        super().__init__("test")
        self.created: dict[str, tuple[str, str, Callback]] = {}

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> Any:
        (callback,) = callbacks or ()
        self.created[name] = "counter", unit, callback
        return super().create_observable_counter(name, callbacks, unit, description)

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> Any:
        (callback,) = callbacks or ()
        self.created[name] = "gauge", unit, callback
        return super().create_observable_gauge(name, callbacks, unit, description)

    def observe(self, name: str) -> dict[tuple[str, ...], float]:
        """The values by the attributes' values but for the directory."""
        observed = list(self.created[name][2](CallbackOptions()))
        return {
            tuple(str(value) for key, value in (each.attributes or {}).items() if key != "directory"): each.value
            for each in observed
        }


def test_every_metric_is_an_instrument(tmp_path: Path) -> None:
    meter = Meter()
    with MessageBuffer(tmp_path / "outbox", FakeProvider(), **FAST) as buffer:
        instruments = BufferInstruments(meter, buffer)
        buffer.write("t", "1")
        buffer.flush(60)
        assert {name.removesuffix("_total") for name in (metric.name for metric in METRICS)} == set(meter.created)
        assert meter.created["mbframework_delivered_messages"][:2] == ("counter", "{message}")
        assert meter.created["mbframework_buffer_bytes"][:2] == ("gauge", "By")
        assert meter.observe("mbframework_delivered_messages") == {("main",): 1}
        assert meter.observe("mbframework_discarded_messages")[("main", "pruned")] == 0
        instruments.remove(buffer)
    instruments.add(tmp_path / "missing")
    assert meter.observe("mbframework_delivered_messages") == {("main",): 1}


def test_one_collection_reads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = make_lane(tmp_path / "outbox", segments=1)
    meter = Meter()
    BufferInstruments(meter, tmp_path / "outbox")
    assert meter.observe("mbframework_buffer_messages") == {("main",): 10}
    move_seek(lane, 4)
    # All of it is of one moment: 4 delivered would not add up with 10 waiting.
    assert meter.observe("mbframework_delivered_messages") == {("main",): 0}
    monkeypatch.setattr(otel, "_TOGETHER_S", 0.0)
    assert meter.observe("mbframework_delivered_messages") == {("main",): 4}
    assert meter.observe("mbframework_up") == {(): 1}


def test_the_sdk_collects_it(tmp_path: Path) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    make_lane(tmp_path / "outbox", segments=2, delivered=3)
    reader = export.InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    try:
        BufferInstruments(provider.get_meter("outbox"), tmp_path / "outbox", tmp_path / "missing")
        data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        points = {metric.name: metric.data.data_points for metric in data}
    finally:
        provider.shutdown()
    assert [point.value for point in points["mbframework_delivered_messages"]] == [3]
    assert sorted(point.value for point in points["mbframework_up"]) == [0, 1]
    assert points["mbframework_buffer_messages"][0].attributes == {
        "directory": str(tmp_path / "outbox"),
        "lane": "main",
    }
