"""``baselines``: whether ``mb bench kafka`` uses the other clients at their best. Each is measured as it is used there,
beside its own benchmark, where it comes with one, and beside other settings of what decides its speed; rounds are short
and interleaved, and what counts is the median of the ratios within each. A client counts as well used where no other
way was faster by more than a tenth. As a control each is also compared with itself: how far that is from 1 is what the
machine does. All ways keep order and acknowledgements as they are: nothing is won by promising less.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from mbframework.bench.figures import median_and_spread, ratios
from mbframework.bench.kafka_clients import (
    TUNED_AIOKAFKA,
    TUNED_CONFLUENT,
    TUNED_JAVA,
    Load,
    Send,
    aiokafka_batches,
    confluent_batch,
    java_performance,
    kafka_own_benchmark,
    kafka_send,
    missing_aiokafka,
    missing_confluent,
    missing_java,
    missing_kafka_python,
    numbered,
)
from mbframework.bench.kafka_round import measure
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.testing.kafka import KafkaBroker
from mbframework.units import parse_size


@dataclass(frozen=True)
class Settings:
    """The options of ``baselines``."""

    rounds: int = setting(9, "Rounds.")
    messages: int = setting(400_000, "Messages of one measurement; slow clients get a part of them.")
    value: str = setting("100", "Bytes of a value.")
    only: str = setting("", "Only the clients whose names contain this.")


@dataclass(frozen=True)
class Client:
    """``used``: as ``mb bench kafka`` does; ``others``: what it is compared with, by what to call it."""

    budget: str
    name: str
    used: Send
    others: dict[str, Send]
    part: float = 1
    missing: str = ""
    times: dict[str, list[float]] = field(default_factory=dict)


#: Java compiles while it begins, and counts it: it takes seconds until that weighs little.
_MOST = 4
_USED, _CONTROL = "as it is used", "as it is used, once more: the control"


def clients() -> list[Client]:
    """All of them."""
    confluent = {
        f"linger.ms={linger}, batch.size={size:,}, {at_once:,} at once": confluent_batch(
            TUNED_CONFLUENT | {"linger.ms": linger, "batch.size": size}, at_once=at_once
        )
        for linger, size, at_once in ((5, 500_000, 10_000), (100, 250_000, 10_000), (100, 1_000_000, 10_000),
                                      (100, 500_000, 2_000), (100, 500_000, 50_000))
    }  # fmt: skip
    aiokafka = {
        f"max_batch_size={size:,}, linger_ms={linger}": aiokafka_batches(max_batch_size=size, linger_ms=linger)
        for size, linger in ((65_536, 0), (262_144, 20), (1_000_000, 0))
    }
    java = {
        f"batch.size={size} linger.ms={linger}": java_performance((f"batch.size={size}", f"linger.ms={linger}"))
        for size, linger in ((262_144, 100), (1_000_000, 100), (1_000_000, 20))
    }
    return [
        Client("baseline-kafka", "kafka-python send()", kafka_send(), {"its own benchmark": kafka_own_benchmark}, 0.1),
        Client(
            "baseline-confluent", "confluent produce_batch()", confluent_batch(TUNED_CONFLUENT), confluent,
            missing=missing_confluent(),
        ),
        Client(
            "baseline-aiokafka", "aiokafka send_batch()", aiokafka_batches(**TUNED_AIOKAFKA), aiokafka, 0.5,
            missing=missing_aiokafka(),
        ),
        Client(
            "baseline-java", "Java ProducerPerformance", java_performance(TUNED_JAVA), java, _MOST,
            missing=missing_java(),
        ),
    ]  # fmt: skip


def run(settings: Settings, directory: str) -> Report:
    """Measure all clients."""
    report = Report("baselines")
    if reason := KafkaBroker.available() or missing_kafka_python():
        report.remarks.append(f"not measured: {reason}")
        return report
    values = _MOST * numbered(settings.messages, parse_size(settings.value))
    chosen = [client for client in clients() if settings.only in client.name]
    with KafkaBroker() as broker:
        # The first round warms the broker's compiler and page cache, and is not counted.
        for turn in range(settings.rounds + 1):
            for client in chosen:
                count = max(1, int(settings.messages * client.part) // (1 if turn else 20))
                ways = {_USED: client.used, **client.others, _CONTROL: client.used}
                # To and fro, so that none is always the one behind another client.
                for name in list(ways)[:: 1 if turn % 2 else -1] if not client.missing else ():
                    spent = measure(f"{client.name}, {name}", ways[name], Load(values[:count]), broker, directory)
                    if turn:
                        client.times.setdefault(name, []).append(spent.time)
    _report(report, settings, chosen)
    return report


def _report(report: Report, settings: Settings, chosen: list[Client]) -> None:
    table = report.table(
        f"{settings.value}-byte values into one broker on this machine; median (lowest … highest) of {settings.rounds}"
        " interleaved rounds",
        "", "messages/s", "as it is used / this, in each round",
    )  # fmt: skip
    for client in chosen:
        if client.missing:
            report.missing(client.budget, client.missing)
            continue
        used = client.times[_USED]
        for name in (_USED, *client.others, _CONTROL):
            times = client.times[name]
            paces = [1e6 / time for time in times]
            ratio = ratios(times, used)
            cell = "" if name == _USED else median_and_spread(ratio, 2)
            table.add(
                f"{client.name}, {name}", median_and_spread(paces, 0), cell,
                client=client.name, way=name, pace=paces, ratio=ratio,
            )  # fmt: skip
        against = {name: ratios(client.times[name], used) for name in client.others}
        best = min(against, key=lambda name: statistics.median(against[name]))
        report.found(client.budget, against[best], best)
