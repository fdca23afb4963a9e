"""``providers``: messages per second from a backlog on disk through the whole buffer into a real server, and how fast
the same client library is when it is used by itself, in the same run.

A backlog is written while the buffer is paused; the time is that from ``resume()`` to the last acknowledgement. The
bare client sends the same values, made beforehand, in the way that its documentation recommends for bulk. Server and
client share the machine. After each measurement the server is asked how many messages it has.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mbframework import MessageBuffer
from mbframework.bench import contending_brokers, contending_stores
from mbframework.bench.contender import MANY, TOPIC, Contender, Send
from mbframework.bench.figures import median_and_spread, number, ratios
from mbframework.bench.kafka_clients import numbered
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.bench.worker import MeasurementFailed
from mbframework.units import parse_size

_OURS = "buffer"


@dataclass(frozen=True)
class Settings:
    """The options of ``providers``."""

    rounds: int = setting(3, "Rounds.")
    messages: int = setting(50_000, "Messages of one measurement; a slow one gets a part of them.")
    value: str = setting("100", "Bytes of a value.")
    only: str = setting("", "Only the providers whose names contain this.")


def run(settings: Settings, directory: str) -> Report:
    """Measure all contenders that can be had here."""
    values = numbered(settings.messages, parse_size(settings.value))
    report = Report("providers")
    table = report.table(
        f"{settings.value}-byte values, median (lowest … highest) of {settings.rounds} interleaved rounds",
        *("", "messages/s", "× bare"),
    )
    for contender in (*contending_brokers.CONTENDERS, *contending_stores.CONTENDERS):
        if settings.only not in contender.name:
            continue
        if reason := contender.obstacle():
            report.remarks.append(f"not measured: {contender.name}: {reason}")
            continue
        some = values[: max(1, int(len(values) * contender.part))]
        try:
            paces = _contend(contender, some, settings.rounds, directory)
        except Exception as error:  # noqa: BLE001 - of whatever client or server: the other providers go on
            report.remarks.append(f"not measured: {contender.name}: {error or type(error).__name__}")
            continue
        for way, found in paces.items():
            ratio = "" if way == _OURS else number(statistics.median(ratios(paces[_OURS], found)))
            table.add(
                f"{contender.name}: {way}", median_and_spread(found, 0), ratio,
                provider=contender.name, way=way, pace=found,
            )  # fmt: skip
    report.remarks.append("× bare: the pace of the buffer divided by that of this way to use the client by itself.")
    return report


def _contend(contender: Contender, values: Sequence[bytes], rounds: int, directory: str) -> dict[str, list[float]]:
    """Messages per second in each round, by the ways to send them."""
    ways: dict[str, Send] = {_OURS: _through_buffer(contender, directory), **contender.bare}
    paces: dict[str, list[float]] = {way: [] for way in ways}
    with contender.server() as server:
        # The first round warms caches, and is not counted.
        for turn in range(rounds + 1):
            for way, send in ways.items():
                pace = _measure(contender, server, send, values, way)
                if turn:
                    paces[way].append(pace)
    return paces


def _measure(contender: Contender, server: Any, send: Send, values: Sequence[bytes], way: str) -> float:
    place = f"bench_{uuid.uuid4().hex}"
    seconds = send(server, place, values)
    arrived = contender.arrived(server, place)
    if arrived != len(values):
        raise MeasurementFailed(f"{contender.name}: {way}: {arrived:,} of {len(values):,} messages arrived")
    return len(values) / seconds


def _through_buffer(contender: Contender, directory: str) -> Send:
    def send(server: Any, place: str, values: Sequence[bytes]) -> float:
        url = contender.url(server, place)
        topic = place if contender.place_is_topic else TOPIC
        with (
            tempfile.TemporaryDirectory(prefix="mb-bench-", dir=directory) as folder,
            MessageBuffer(os.path.join(folder, "buffer"), url, mode="always", catch_up="full") as buffer,
        ):
            # Connected, and past what is done once.
            buffer.write(topic, values[0])
            buffer.flush(60)
            buffer.pause()
            for first in range(1, len(values), MANY):
                buffer.write_many(topic, values[first : first + MANY])
            begun = time.perf_counter()
            buffer.resume()
            buffer.flush(600)
            return time.perf_counter() - begun

    return send
