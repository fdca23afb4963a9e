"""The transactional side of a connection: one transaction at a time, with the lane's position in it.

librdkafka's calls are made again and again with short time-outs, which goes on where the one before stopped. The one
that stores the position does not heed its time-out where the group's coordinator is away, and may wait for ever: a
thread of its own makes it. What is pending when nobody waits any more ends with the connection; what had become of it
then is told by :meth:`Transactions.take_over` of the next one.

The position of a lane is the offset that its consumer group has committed for partition 0 of the position topic; the
metadata beside it names the run. Nobody ever consumes as that group. The provider ``kafka`` stores it the same way.

Everything is called by one thread at a time, the connection's.
"""

# ruff: noqa: SLF001 - so librdkafka's own errors are named
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from mbframework.message import Position
from mbframework_confluent.connection import Connection, Left, end
from mbframework_confluent.outcome import Answer, Blocked, NotAcknowledged, NotStored, answer_to

_Result = TypeVar("_Result")

#: Which version of our metadata it is.
_MARK = "mb1 "
#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.3
#: Seconds until what could not be done is tried again.
_AGAIN_S = 0.02
#: What passes. Where a consumer asks for an offset while the coordinator moves, librdkafka does not say so itself.
_PASSING = {
    KafkaError._TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


class ForeignOffset(Exception):
    """The offset that is committed for our group is not one of ours."""


def lane_name(prefix: str, buffer_id: str, lane: str) -> str:
    """The transactional id and the consumer group of a lane."""
    return f"{prefix}.{buffer_id}.{lane}"


def to_metadata(position: Position) -> str:
    """What is committed beside the offset, which is the sequence."""
    return _MARK + position.run.hex()


def to_position(offset: int, metadata: str) -> Position | None:
    """The position of a committed offset; None where there is none.

    :raises ForeignOffset: somebody else committed it.
    """
    if offset < 0:
        return None
    if metadata.startswith(_MARK):
        try:
            # confluent-kafka writes the end of a text of C as well.
            run = bytes.fromhex(metadata.removeprefix(_MARK).removesuffix("\0"))
        except ValueError:
            run = b""
        if len(run) == 16:
            return Position(offset, run)
    raise ForeignOffset(f"offset {offset} with the metadata {metadata[:80]!r}")


class _Storing(threading.Thread):
    """One call that adds offsets to a transaction; ``error`` is what it came to."""

    def __init__(self, producer: Producer, offsets: list[TopicPartition], group: Any, timeout_s: float) -> None:
        super().__init__(name="mb-confluent-store", daemon=True)
        self._call = partial(producer.send_offsets_to_transaction, offsets, group, timeout_s)
        self.error: Answer | None = None

    def run(self) -> None:
        try:
            self._call()
        except KafkaException as error:
            self.error = answer_to(error.args[0])


class Transactions:
    """Of one connection.

    :param name: the transactional id, with which the producer was made, and the consumer group.
    :param place: the topic that positions are committed for.
    :param settings: those of the producer.
    """

    def __init__(self, connection: Connection, name: str, place: str, settings: Mapping[str, Any]) -> None:
        self._connection = connection
        self._place = place
        # What concerns producers only, librdkafka leaves aside.
        self._reading = {
            **{key: value for key, value in settings.items() if key != "transactional.id"},
            "group.id": name,
            # So that an offset that is about to change is waited for.
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "error_cb": connection.heard.error,
            "logger": connection.heard,
        }
        self._group: Any = None
        connection.why_broken = self._why_broken

    def take_over(self, left: Left) -> None:
        """End whatever others have begun with our transactional id, in one way or the other; they cannot go on.

        :raises Answer: it is refused; a :class:`~mbframework_confluent.outcome.NotAcknowledged`: no time is left.
        """
        self._patiently(self._connection.producer.init_transactions, left, "to end the transactions before")

    def stored(self, left: Left) -> Position | None:
        """The position that is committed. Raises as :meth:`take_over`.

        :raises ForeignOffset: see there.
        """
        reader = Consumer(self._reading)
        self._connection.clients.append(reader)
        try:
            # Only a consumer knows how to say that it is in no group.
            self._group = reader.consumer_group_metadata()
            place = [TopicPartition(self._place, 0)]

            def ask(wait: float) -> list[TopicPartition]:
                # What keeps it from finding the group's coordinator a consumer tells as if it were a message.
                told = reader.poll(0)
                error = told.error() if told is not None else None
                if error is not None and isinstance(why := answer_to(error), Blocked):
                    raise why
                return reader.committed(place, wait)

            [found] = self._patiently(ask, left, "to tell the lane's position")
        finally:
            self._connection.clients.remove(reader)
            end(reader)
        if found.error is not None:
            raise answer_to(found.error, self._place)
        return to_position(found.offset, found.metadata or "")

    def begin(self) -> None:
        """Begin a transaction. Raises as :meth:`take_over`."""
        try:
            self._connection.producer.begin_transaction()
        except KafkaException as error:
            raise answer_to(error.args[0]) from error

    def store(self, position: Position, left: Left) -> None:
        """Store the position in the transaction. Raises as :meth:`take_over`; where no time is left, NotStored."""
        offsets = [TopicPartition(self._place, 0, position.sequence, metadata=to_metadata(position))]
        storing = _Storing(self._connection.producer, offsets, self._group, left())
        self._connection.busy = storing
        storing.start()
        heard = self._connection.heard
        while storing.is_alive():
            storing.join(min(_LOOK_S, left()))
            self._connection.serve()
            if why := heard.refusal or heard.dead:
                raise why
            if not left():
                raise NotStored("it took too long to store the position")
        self._connection.busy = None
        if isinstance(storing.error, Blocked):
            raise Blocked(f"the position for topic {self._place!r}: {storing.error}", storing.error.code)
        if storing.error is not None:
            raise storing.error

    def commit(self, left: Left) -> None:
        """What is in the transaction, all of which is acknowledged, becomes visible. Raises as :meth:`take_over`; then
        it may have, or may still."""
        self._patiently(self._connection.producer.commit_transaction, left, "to commit")

    def abort(self, left: Left) -> None:
        """Nothing of it ever becomes visible. Raises as :meth:`take_over`; then the next one does this."""
        self._patiently(self._connection.producer.abort_transaction, left, "to abort")

    def _why_broken(self) -> Answer | None:
        # In a broken transaction each call tells why it is so, and this one does nothing else.
        storing = _Storing(self._connection.producer, [TopicPartition(self._place, 0, 0)], self._group, _LOOK_S)
        storing.run()
        return storing.error

    def _patiently(self, call: Callable[[float], _Result], left: Left, what: str) -> _Result:
        heard = self._connection.heard
        while wait := min(_LOOK_S, left()):
            try:
                return call(wait)
            except KafkaException as error:
                said = error.args[0]
                if not said.retriable() and said.code() not in _PASSING:
                    raise answer_to(said) from error
            self._connection.serve()
            if why := heard.refusal or heard.dead:
                raise why
            # Nothing tells when it can be done.
            time.sleep(_AGAIN_S)
        raise NotAcknowledged(f"it took too long {what}")
