"""What these tests share: a producer in front of a fake broker, and what became of its futures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework.compat import FutureRecordMetadata, KafkaProducer
from tests.engine.rig import FAST

#: Seconds after which something that should have happened will not.
WAIT_S = 20.0


def producer_at(path: Path, broker: FakeBroker, **arguments: Any) -> KafkaProducer:
    """A producer whose buffer is in ``path``."""
    return KafkaProducer(buffer_directory=path / "outbox", provider=FakeProvider(broker), **FAST | arguments)


def fates(futures: Iterable[FutureRecordMetadata]) -> Counter[str]:
    """How many were delivered, and how many failed with which error."""
    return Counter(fate(future) for future in futures)


def fate(future: FutureRecordMetadata) -> str:
    """What became of one."""
    if not future.is_done:
        return "pending"
    return "delivered" if future.succeeded() else type(future.exception).__name__
