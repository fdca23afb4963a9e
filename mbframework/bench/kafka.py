"""``kafka``: messages per second from a backlog on disk into a real Kafka broker, through the whole buffer, and how
fast the clients are that one would otherwise use, in the same run.

A backlog is written while the buffer is paused; the time is that from ``resume()`` to the last acknowledgement.
Clients are timed from the first call to the last acknowledgement, with all values made beforehand. Broker and client
share the machine, so that the broker's processor time is shown as well. After each measurement the broker is asked how
many messages it has. Whether the other clients are used at their best is for ``mb bench baselines`` to show.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from mbframework import speedups
from mbframework.bench.figures import median_and_spread, number, ratios
from mbframework.bench.kafka_clients import (
    TUNED_AIOKAFKA,
    TUNED_CONFLUENT,
    TUNED_JAVA,
    TUNED_KAFKA,
    Load,
    Send,
    aiokafka_batches,
    aiokafka_send,
    confluent_batch,
    confluent_produce,
    drain,
    java_performance,
    kafka_send,
    missing_aiokafka,
    missing_confluent,
    missing_java,
    missing_kafka_python,
    numbered,
)
from mbframework.bench.kafka_round import Spent, measure
from mbframework.bench.report import Report
from mbframework.bench.setting import setting
from mbframework.testing.kafka import KafkaBroker
from mbframework.units import parse_size

#: Of the messages, in the round that is not counted.
_WARMING = 20
#: Java compiles while it begins, and counts it.
_MOST = 4
_EXACTLY = "delivery=exactly-once"
#: As the buffer's messages have one: produce_batch() takes none.
_TIMED = "confluent produce(), tuned, with a timestamp each"
#: What is compared with what, beside the budgets.
_LIKE = (("buffer, confluent", _TIMED), ("buffer, confluent, written one by one", _TIMED))
_BUDGETS = ("kafka-send", "kafka-best", "kafka-single", "kafka-rich", "confluent-best")


@dataclass(frozen=True)
class Settings:
    """The options of ``kafka``."""

    rounds: int = setting(5, "Rounds.")
    messages: int = setting(500_000, "Messages of one measurement; slow clients get a part of them.")
    value: str = setting("100", "Bytes of a value.")
    only: str = setting("", "Only the cases whose names contain this, and KafkaProducer.send().")


@dataclass(frozen=True)
class Case:
    """``part``: of the messages; less for a slow client, more for one that begins slowly. ``client``: whose it is, ""
    for the buffer. ``missing``: why it cannot be measured here. ``once``: delivered exactly once, in transactions."""

    name: str
    client: str
    send: Send
    rich: bool = False
    part: float = 1
    missing: str = ""
    once: bool = False


def cases() -> list[Case]:
    """All of them; the first is what most programs do."""
    confluent, aiokafka, java = missing_confluent(), missing_aiokafka(), missing_java()
    rich = "keys, headers, 4 partitions: "
    return [
        Case("KafkaProducer.send(), its defaults", "kafka-python", kafka_send(), part=0.05),
        Case("KafkaProducer.send(), tuned", "kafka-python", kafka_send(**TUNED_KAFKA), part=0.05),
        Case("buffer, kafka", "", drain("kafka")),
        Case("buffer, kafka, written one by one", "", drain("kafka", one_by_one=True), part=0.5),
        Case("buffer, kafka, bulk=no", "", drain("kafka", "bulk=no"), part=0.05),
        Case("buffer, confluent", "", drain("confluent"), missing=confluent),
        Case(
            "buffer, confluent, written one by one", "", drain("confluent", one_by_one=True), part=0.5,
            missing=confluent,
        ),
        Case("buffer, kafka, exactly once", "", drain("kafka", _EXACTLY), part=0.5, once=True),
        Case(
            "buffer, confluent, exactly once", "", drain("confluent", _EXACTLY), part=0.5, missing=confluent,
            once=True,
        ),
        Case("confluent produce_batch(), defaults", "confluent", confluent_batch({}), missing=confluent),
        Case("confluent produce_batch(), tuned", "confluent", confluent_batch(TUNED_CONFLUENT), missing=confluent),
        Case("confluent produce(), tuned", "confluent", confluent_produce(TUNED_CONFLUENT), missing=confluent),
        Case(_TIMED, "confluent", confluent_produce(TUNED_CONFLUENT, timed=True), missing=confluent),
        Case(
            "confluent produce(), tuned, with a callback each", "confluent",
            confluent_produce(TUNED_CONFLUENT, callback=True), missing=confluent,
        ),
        Case("aiokafka send(), tuned", "aiokafka", aiokafka_send(**TUNED_AIOKAFKA), part=0.1, missing=aiokafka),
        Case(
            "aiokafka send_batch(), tuned", "aiokafka", aiokafka_batches(**TUNED_AIOKAFKA),
            part=0.5, missing=aiokafka,
        ),
        Case("Java ProducerPerformance, defaults", "Java", java_performance(()), part=_MOST, missing=java),
        Case("Java ProducerPerformance, tuned", "Java", java_performance(TUNED_JAVA), part=_MOST, missing=java),
        Case(f"{rich}KafkaProducer.send()", "kafka-python", kafka_send(), rich=True, part=0.05),
        Case(f"{rich}buffer, kafka", "", drain("kafka"), rich=True),
        Case(f"{rich}buffer, confluent", "", drain("confluent"), rich=True, missing=confluent),
        Case(
            f"{rich}confluent produce()", "confluent", confluent_produce(TUNED_CONFLUENT),
            rich=True, missing=confluent,
        ),
        Case(
            f"{rich}aiokafka send()", "aiokafka", aiokafka_send(**TUNED_AIOKAFKA),
            rich=True, part=0.1, missing=aiokafka,
        ),
    ]  # fmt: skip


def run(settings: Settings, directory: str) -> Report:
    """Measure all cases."""
    report = Report("kafka")
    if reason := KafkaBroker.available() or missing_kafka_python():
        for budget in _BUDGETS:
            report.missing(budget, reason)
        return report
    values = _MOST * numbered(settings.messages, parse_size(settings.value))
    every = cases()
    chosen = [case for case in every if settings.only in case.name or case is every[0]]
    found: dict[str, list[Spent]] = {case.name: [] for case in chosen if not case.missing}
    with KafkaBroker() as broker:
        # The first round warms the broker's compiler and page cache, and is not counted.
        for turn in range(settings.rounds + 1):
            for case in chosen:
                if case.missing:
                    continue
                count = max(1, int(settings.messages * case.part) // (1 if turn else _WARMING))
                load = Load(values[:count], case.rich)
                spent = measure(case.name, case.send, load, broker, directory, transactions=case.once)
                if turn:
                    found[case.name].append(spent)
    _table(report, settings, [case for case in chosen if case.name in found], found)
    times = {name: [spent.time for spent in each] for name, each in found.items()}
    _like(report, settings, times)
    _budgets(report, chosen, times)
    for case in chosen:
        if case.missing:
            report.remarks.append(f"not measured: {case.name}: {case.missing}")
    return report


def _rivals(chosen: list[Case], times: dict[str, list[float]], rich: bool, clients: tuple[str, ...]) -> list[str]:
    """The names of the other clients' cases, the fastest first."""
    names = [case.name for case in chosen if case.rich == rich and case.client in clients and case.name in times]
    return sorted(names, key=lambda name: statistics.median(times[name]))


def _table(report: Report, settings: Settings, chosen: list[Case], found: dict[str, list[Spent]]) -> None:
    table = report.table(
        f"{settings.value}-byte values into one broker on this machine; median (lowest … highest) of {settings.rounds}"
        " interleaved rounds",
        "", "messages/s", "× send()", "× best other", "client, µs of CPU", "broker, µs of CPU",
    )  # fmt: skip
    times = {name: [spent.time for spent in each] for name, each in found.items()}
    plain = {False: times[chosen[0].name]}
    for case in chosen:
        if case.client == "kafka-python":
            # The first of its kind is the one with the defaults.
            plain.setdefault(case.rich, times[case.name])
    others = tuple({case.client for case in chosen} - {""})
    for case in chosen:
        paces = [1e6 / time for time in times[case.name]]
        best = next(iter(_rivals(chosen, times, case.rich, others)), case.name)
        once = ratios(plain.get(case.rich, plain[False]), times[case.name])
        rival = ratios(times[best], times[case.name])
        client = statistics.median(spent.client for spent in found[case.name])
        broker = statistics.median(spent.broker for spent in found[case.name])
        table.add(
            case.name, median_and_spread(paces, 0), number(statistics.median(once)), number(statistics.median(rival)),
            f"{client:,.2f}", f"{broker:,.2f}", case=case.name, pace=paces, ratio=once, best=rival,
            client_cpu=client, broker_cpu=broker,
        )  # fmt: skip
    report.remarks.append(
        "× send(): against KafkaProducer.send() with its defaults; × best other: against the fastest client here; both"
        " with the same kind of messages. CPU per message; a buffer's contains the writing of the backlog, Java's the"
        " start of its virtual machine. Slow clients send a part of the messages."
    )


def _like(report: Report, settings: Settings, times: dict[str, list[float]]) -> None:
    """The buffer beside what carries the same, where the budgets take what is fastest; nothing is demanded of it."""
    pairs = [(ours, theirs) for ours, theirs in _LIKE if ours in times and theirs in times]
    if not pairs:
        return
    table = report.table(
        f"Like with like; ratios within a round: median (lowest … highest) of {settings.rounds}", "", "against", "×"
    )
    for ours, theirs in pairs:
        ratio = ratios(times[theirs], times[ours])
        table.add(ours, theirs, median_and_spread(ratio, 2), case=ours, against=theirs, ratio=ratio)


def _budgets(report: Report, chosen: list[Case], times: dict[str, list[float]]) -> None:
    best = next(iter(_rivals(chosen, times, False, ("confluent", "Java"))), None)
    rich = next(iter(_rivals(chosen, times, True, ("kafka-python", "confluent", "aiokafka"))), None)
    bare = next(iter(_rivals(chosen, times, False, ("confluent",))), None)
    names = {case.name for case in chosen}
    for budget, baseline, ours in (
        ("kafka-send", chosen[0].name, "buffer, kafka"),
        ("kafka-best", best, "buffer, kafka"),
        ("kafka-single", best, "buffer, kafka, written one by one"),
        ("kafka-rich", rich, "keys, headers, 4 partitions: buffer, kafka"),
        ("confluent-best", bare, "buffer, confluent"),
    ):
        if ours not in names:
            continue
        if baseline is None or ours not in times:
            report.missing(budget, missing_confluent() or missing_java() or "nothing to compare with was chosen")
        elif budget == "kafka-single" and speedups.why_plain:
            report.missing(budget, f"no extension: {speedups.why_plain}")
        else:
            report.found(budget, ratios(times[baseline], times[ours]), baseline)
