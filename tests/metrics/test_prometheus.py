"""The collector in a registry: what a scrape has, as Prometheus reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from mbframework import MessageBuffer
from mbframework.metrics.catalogue import METRICS
from mbframework.metrics.prometheus import BufferCollector
from tests.engine.rig import FAST, SMALL, eventually
from tests.monitor.lanes import make_lane

#: As the design has them; what is beyond is an addition.
PROMISED = {
    *("mbframework_buffer_messages", "mbframework_buffer_bytes", "mbframework_buffer_limit_bytes"),
    *("mbframework_oldest_message_age_seconds", "mbframework_accepted_messages_total"),
    *("mbframework_delivered_messages_total", "mbframework_discarded_messages_total", "mbframework_retries_total"),
    *("mbframework_state", "mbframework_last_error_timestamp_seconds"),
}


def scrape(registry: CollectorRegistry) -> dict[str, dict[tuple[str, ...], float]]:
    """By name the values, by the labels' values but for the directory."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(value for name, value in sample.labels.items() if name != "directory")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def registry_of(*sources: object) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(BufferCollector(*sources))  # type: ignore[arg-type]
    return registry


def test_a_buffer_that_prunes(tmp_path: Path) -> None:
    options = FAST | SMALL | {"batch_messages": 20}
    with MessageBuffer(tmp_path / "outbox", "fault:?inner=fake:&error_rate=1", **options) as buffer:
        registry = registry_of(buffer)
        for _ in range(1_000):
            buffer.write("t", b"x" * 500)
        eventually(lambda: scrape(registry).get("mbframework_retries_total", {}).get(("main",)), "a retry")
        found = scrape(registry)
        status = buffer.status()
    assert set(found) >= PROMISED
    assert set(found) == {metric.name for metric in METRICS}
    assert found["mbframework_discarded_messages_total"][("main", "pruned")] == status.pruned > 0
    assert found["mbframework_accepted_messages_total"][("main",)] == status.accepted
    assert found["mbframework_buffer_messages"][("main",)] == status.resident
    assert 0 < found["mbframework_buffer_bytes"][("main",)] <= found["mbframework_buffer_limit_bytes"][("main",)]
    assert found["mbframework_state"][("main", "buffering")] == 1
    assert found["mbframework_consecutive_failures"][("main",)] > 0
    assert found["mbframework_up"] == {(): 1}


def test_several_lanes_and_directories_good_and_bad(tmp_path: Path) -> None:
    for lane in ("main", "second"):
        with MessageBuffer(tmp_path / "outbox", FakeProvider(), lane=lane, **FAST) as buffer:
            buffer.write("t", "1")
    bad = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff\n\"'\\"))
    text = generate_latest(registry_of(tmp_path / "outbox", str(tmp_path / "outbox"), bad, tmp_path)).decode()
    found = list(parse(text))
    (accepted,) = (family for family in found if family.name == "mbframework_accepted_messages")
    assert accepted.type == "counter"
    assert {sample.labels["lane"]: sample.value for sample in accepted.samples} == {"main": 1, "second": 1}
    (up,) = (family for family in found if family.name == "mbframework_up")
    assert sorted(sample.value for sample in up.samples) == [0, 0, 1]
    assert {sample.labels["directory"] for sample in up.samples} >= {str(tmp_path), str(tmp_path / "outbox")}


def test_openmetrics_reads_it_as_well(tmp_path: Path) -> None:
    make_lane(tmp_path / "outbox", segments=3, delivered=5)
    found = {
        family.name: family
        for family in parse_openmetrics(generate_openmetrics(registry_of(tmp_path / "outbox")).decode())
    }
    assert found["mbframework_buffer_messages"].samples[0].value == 25
    assert found["mbframework_delivered_messages"].type == "counter"


def test_a_scrape_goes_on_while_a_directory_comes_and_goes(tmp_path: Path) -> None:
    registry = registry_of(tmp_path / "outbox")
    assert scrape(registry)["mbframework_up"] == {(): 0}
    make_lane(tmp_path / "outbox", segments=1)
    assert scrape(registry)["mbframework_buffer_messages"] == {("main",): 10}
    (tmp_path / "outbox" / "buffer.json").write_text('{"format": 1, "id": "\x1b')
    assert scrape(registry)["mbframework_up"] == {(): 0}


def test_buffers_come_and_go_in_one_collector(tmp_path: Path) -> None:
    registry, collector = CollectorRegistry(auto_describe=True), BufferCollector()
    registry.register(collector)
    assert scrape(registry) == {}
    with MessageBuffer(tmp_path / "outbox", FakeProvider(), **FAST) as buffer:
        collector.add(buffer)
        collector.add(buffer)
        assert scrape(registry)["mbframework_accepted_messages_total"] == {("main",): 0}
        # A second collector would repeat every name.
        with pytest.raises(ValueError, match="mbframework_up"):
            registry.register(BufferCollector(tmp_path))
    collector.remove(buffer)
    assert scrape(registry) == {}


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("otel", "opentelemetry", "otel")],
)
def test_without_its_library_a_module_says_what_to_install(module: str, library: str, extra: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None; import mbframework.metrics.{module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert f"run: pip install 'mbframework[{extra}]'" in done.stderr.splitlines()[-1]
