"""What is demanded of the figures: every budget stands here, once, and each figure is measured by one benchmark.

A figure is the median of its samples. Pure: nothing here measures anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mbframework.bench.figures import number


@dataclass(frozen=True)
class Budget:
    """``what`` is measured against ``baseline`` ("": the figure stands for itself), in ``unit``, and should be at
    least (or ``at_most``) ``limit``. ``bench``: the benchmark that measures it."""

    name: str
    bench: str
    what: str
    baseline: str
    unit: str
    limit: float
    at_most: bool = False

    @property
    def demanded(self) -> str:
        """Such as ``≥ 6 ×``."""
        return f"{'≤' if self.at_most else '≥'} {number(self.limit)} {self.unit}"

    def met(self, measured: float) -> bool:
        """Whether a figure is within it."""
        return measured <= self.limit if self.at_most else measured >= self.limit

    def verdict(self, measured: float) -> str:
        """``met``, or ``missed`` and by which part of the limit."""
        if self.met(measured):
            return "met"
        return f"missed by {abs(measured - self.limit) / self.limit:.0%}"


@dataclass(frozen=True)
class Measured:
    """What became of a budget: ``samples``, one a round, or why there is none."""

    name: str
    samples: Sequence[float] = ()
    missing: str = ""
    #: How it came about, where the budget's own words do not tell.
    note: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.samples)


_OS_WRITE = "one `os.write()` a message"
_BEST = "the best of confluent and tuned Java"
_SEND = "`KafkaProducer.send()`, defaults"

BUDGETS = (
    Budget("write", "write", "`write()`, 100 bytes, plain Python", _OS_WRITE, "×", 1.2),
    Budget("write-threads", "write", "`write()`, plain Python, 4 threads", "`write()`, 1 thread", "×", 0.8),
    Budget("write-c", "write", "`write()`, C extension", _OS_WRITE, "×", 6),
    Budget("write-c-threads", "write", "`write()`, C extension, 4 threads", "`write()` in C, 1 thread", "×", 0.8),
    Budget("many", "write", "`write_many(1000)`, plain Python", "plain `write()`", "×", 8),
    Budget("many-c", "write", "`write_many(1000)`, C extension", "plain `write()`", "×", 25),
    Budget("peers", "peers", "`write()`, plain Python", "the best other queue", "×", 10),
    Budget("peers-c", "peers", "`write()`, C extension", "the best other queue", "×", 10),
    Budget("kafka-send", "kafka", "spool → Kafka, kafka-python", _SEND, "×", 25),
    Budget("kafka-best", "kafka", "spool → Kafka, kafka-python", _BEST, "×", 0.8),
    Budget("kafka-single", "kafka", "spool → Kafka, kafka-python, frames of 1", _BEST, "×", 0.6),
    Budget("kafka-rich", "kafka", "spool → Kafka: keys, headers, 4 partitions", "the best other client", "×", 0.8),
    Budget("confluent-best", "kafka", "spool → Kafka, confluent", "the bare client's best", "×", 0.9),
    Budget("baseline-kafka", "baselines", "bare kafka-python, as measured here", "its own benchmark", "×", 0.9),
    Budget("baseline-confluent", "baselines", "bare confluent-kafka, tuned", "its best settings", "×", 0.9),
    Budget("baseline-aiokafka", "baselines", "bare aiokafka, tuned", "its best settings", "×", 0.9),
    Budget("baseline-java", "baselines", "Java `ProducerPerformance`, tuned", "its best settings", "×", 0.9),
    Budget(
        "ack-kafka-live", "acknowledged", "write → acknowledged, kafka-python, live, p99",
        "the bare client's p99", "ms more", 2, at_most=True,
    ),
    Budget(
        "ack-kafka-always", "acknowledged", "write → acknowledged, kafka-python, always to disk, p99",
        "the bare client's p99", "ms more", 5, at_most=True,
    ),
    Budget(
        "ack-confluent-live", "acknowledged", "write → acknowledged, confluent, live, p99",
        "the bare client's p99", "ms more", 2, at_most=True,
    ),
    Budget(
        "ack-confluent-always", "acknowledged", "write → acknowledged, confluent, always to disk, p99",
        "the bare client's p99", "ms more", 5, at_most=True,
    ),
    Budget("outage-p999", "latency", "`write()` through outages of Kafka, p99.9", "", "µs", 200, at_most=True),
    Budget("outage-max", "latency", "`write()` through outages of Kafka, the longest", "", "ms", 20, at_most=True),
    Budget("open", "open", "open a backlog of 10 GB, and the first `write()`", "", "ms", 100, at_most=True),
    Budget("memory-open", "open", "memory with 10 GB of backlog", "the empty buffer", "MiB more", 32, at_most=True),
    Budget("memory", "memory", "memory through an outage", "the empty buffer", "MiB more", 32, at_most=True),
    Budget("verify", "check", "`mb verify`", "", "MB/s", 500),
    Budget("peek", "check", "`mb peek`, what it reads", "the whole backlog", "%", 1, at_most=True),
)  # fmt: skip

#: What a reader wants to know first.
HEADLINES = (
    *("write-c", "write", "many-c", "peers-c", "kafka-send", "kafka-best", "confluent-best", "ack-kafka-live"),
    *("outage-p999", "outage-max", "open", "memory", "verify"),
)

BY_NAME = {budget.name: budget for budget in BUDGETS}
