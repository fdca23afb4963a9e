"""What a run against a single Kafka needs: a broker that it may kill, and a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_jars import BrokerError


@contextmanager
def placed(folder: Path | None) -> Iterator[Path]:
    """``folder``, made where it is missing and kept; without one a temporary one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="mbframework-torture-") as temporary:
        yield Path(temporary)


@contextmanager
def own_broker(folder: Path | None) -> Iterator[tuple[KafkaBroker, Path]]:
    """A broker that runs, and the folder; see :func:`placed`.

    :raises BrokerError: there is none, or none that may be killed.
    """
    if reason := KafkaBroker.available():
        raise BrokerError(f"no Kafka broker: {reason}")
    with placed(folder) as place, KafkaBroker() as broker:
        if not broker.controllable:
            raise BrokerError("the broker must be ours to kill; unset MBFRAMEWORK_TEST_KAFKA")
        yield broker, place
