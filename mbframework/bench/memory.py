"""``memory``: far more is written than the buffer may hold while the provider is away; then the provider returns.

What must hold: the oldest messages are pruned and counted exactly, the rest arrives in order, every account agrees with
what was counted outside, the disk never holds more than total_size, and memory stays at that of an empty buffer.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mbframework import MessageBuffer
from mbframework.bench.gauge import Most, resident, watched
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.tally import Tally, TallyProvider, values
from mbframework.bench.worker import MeasurementFailed
from mbframework.status import LaneStatus
from mbframework.testing.kafka import KafkaBroker
from mbframework.units import MiB, format_size, parse_size

_MANY = 1000
_TOPIC = "outage"


@dataclass
class Found:
    """What one outage showed; memory in bytes, times in seconds."""

    written: int
    empty_anon: int
    empty_file: int
    writing: Most
    draining: Most
    before_return: LaneStatus
    status: LaneStatus
    tally: Tally
    write_s: float
    drain_s: float


@dataclass(frozen=True)
class Settings:
    """The options of ``memory``."""

    bytes: str = setting("5GB", "Bytes of values written.")
    total_size: str = setting("1GB", "total_size of the buffer.")
    value: str = setting("1000", "Bytes of a value.")
    kafka: bool = setting(False, "A real broker, which is killed, instead of a counter.")
    timeout: float = setting(1800.0, "Seconds for what is left to arrive.")


def run(settings: Settings, directory: str) -> Report:
    """Measure one outage."""
    size = parse_size(settings.value)
    count = parse_size(settings.bytes) // size
    options: dict[str, Any] = {"total_size": parse_size(settings.total_size)}
    with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder:
        place = os.path.join(folder, "buffer")
        if settings.kafka:
            found = _with_kafka(place, count, size, options, settings.timeout)
        else:
            provider = TallyProvider()
            with MessageBuffer(place, provider, close_timeout=0, **options) as buffer:
                found = suffer(
                    buffer, count, size, settings.timeout,
                    down=provider.away.set, up=provider.away.clear, tally=lambda: provider.tally,
                )  # fmt: skip
    return _report(settings, found, options["total_size"])


def suffer(
    buffer: MessageBuffer, count: int, size: int, timeout: float, *,
    down: Callable[[], object], up: Callable[[], object], tally: Callable[[], Tally],
) -> Found:  # fmt: skip
    """Write ``count`` values while the provider is ``down``, bring it ``up``, wait until all that is left arrived."""
    lane = os.path.join(buffer.directory, buffer.lane)
    for first in range(0, 10 * _MANY, _MANY):
        buffer.write_many(_TOPIC, values(first, _MANY, size))
    buffer.flush(timeout)
    empty = resident()
    down()
    written = 10 * _MANY
    begun = time.monotonic()
    with watched(lane) as writing:
        while written < count:
            many = min(_MANY, count - written)
            buffer.write_many(_TOPIC, values(written, many, size))
            written += many
    wrote = time.monotonic()
    before_return = buffer.status()
    with watched(lane) as draining:
        up()
        buffer.flush(timeout)
    drained = time.monotonic()
    return Found(
        written, empty["RssAnon"], empty["RssFile"], writing, draining, before_return, buffer.status(), tally(),
        wrote - begun, drained - wrote,
    )  # fmt: skip


def _with_kafka(directory: str, count: int, size: int, options: dict[str, Any], timeout: float) -> Found:
    reason = KafkaBroker.available()
    if reason is not None:
        raise MeasurementFailed(f"no Kafka broker: {reason}")
    with KafkaBroker() as broker:
        broker.create_topic(_TOPIC)

        def tally() -> Tally:
            result = Tally()
            result.add(record.value for record in broker.read_iter(_TOPIC, timeout=timeout))
            return result

        with MessageBuffer(directory, f"kafka://{broker.bootstrap}", close_timeout=0, **options) as buffer:
            return suffer(buffer, count, size, timeout, down=broker.kill, up=broker.restart, tally=tally)


def _report(settings: Settings, found: Found, total_size: int) -> Report:
    report = Report("memory")
    status, tally = found.status, found.tally
    table = report.table(
        f"{settings.bytes} of values of {settings.value} bytes into total_size={settings.total_size}, "
        + ("a real Kafka broker killed before, restarted after" if settings.kafka else "a provider that counts"),
        "messages", "status()", "counted outside", "agree",
    )  # fmt: skip
    accounts = [
        ("accepted", status.accepted, found.written),
        ("delivered", status.delivered, tally.arrived - tally.repeated),
        ("pruned", status.pruned, tally.missing),
        ("expired + dead + purged + lost", status.expired + status.dead + status.purged + status.lost, 0),
        ("resident", status.resident, 0),
        ("repeated, or out of order", 0, tally.repeated),
    ]
    for name, told, counted in accounts:
        table.add(name, f"{told:,}", f"{counted:,}", _yes(told == counted), account=name, status=told, counted=counted)
    gone = status.delivered + status.pruned + status.expired + status.dead + status.purged + status.lost
    table.add(
        "accepted = the sum of the rest", f"{status.accepted:,}", f"{gone + status.resident:,}", _yes(status.balanced),
        account="balance", status=status.accepted, counted=gone + status.resident,
    )  # fmt: skip
    table = report.table(
        "Memory above that of the buffer when it was empty",
        "", "RssAnon, empty", "most", "more, MiB", "RssFile, empty", "most", "samples",
    )  # fmt: skip
    for name, most in (("writing", found.writing), ("draining", found.draining)):
        table.add(
            name, format_size(found.empty_anon), format_size(most.anon),
            f"{(most.anon - found.empty_anon) / MiB:,.1f}", format_size(found.empty_file), format_size(most.file),
            f"{most.samples:,}", phase=name, empty=found.empty_anon, most=most.anon, file=most.file,
        )  # fmt: skip
    most_anon = max(found.writing.anon, found.draining.anon)
    more = (most_anon - found.empty_anon) / MiB
    report.found("memory", [more], f"the empty buffer; {settings.bytes} into {settings.total_size}")
    table = report.table(
        "Bytes on the device, the highest of all samples", "", "segments", "total_size", "share", "whole lane"
    )
    for name, most in (("writing", found.writing), ("draining", found.draining)):
        table.add(
            name, f"{most.segments:,}", f"{total_size:,}", f"{most.segments / total_size:.1%}", f"{most.directory:,}",
            phase=name, segments=most.segments, total_size=total_size,
        )  # fmt: skip
    table = report.table("Pace, for orientation", "", "s", "messages/s", "MB/s")
    size = parse_size(settings.value)
    for name, number, seconds in (
        ("write_many(1000) while down", found.written, found.write_s),
        ("draining, ramp included", found.before_return.resident, found.drain_s),
    ):
        pace = number / seconds
        table.add(name, f"{seconds:,.1f}", f"{pace:,.0f}", f"{pace * size / 1e6:,.1f}", what=name, seconds=seconds)
    report.remarks.append(
        "RssAnon counts what belongs to the process alone. RssFile holds mapped files: pages of segments are page "
        "cache, which the system may drop at any time, so they are shown and not counted."
    )
    report.remarks.append(f"the provider's tally: {tally.text}")
    return report


def _yes(agree: bool) -> str:
    return "yes" if agree else "NO"
