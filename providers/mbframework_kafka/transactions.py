"""The transactional side of a connection: one transaction at a time, with the lane's position in it.

kafka-python's own ``commit_transaction()`` and ``send_offsets_to_transaction()`` wait without bound, so the requests
behind them are used, and waited for here. What is pending when nobody waits any more ends with the connection; what
had become of it then is told by :meth:`Transactions.take_over` of the next one.

The position of a lane is the offset that its consumer group has committed for partition 0 of the position topic; the
metadata beside it names the run. Nobody ever consumes as that group. The provider ``confluent`` stores it the same way.

The sender's thread calls everything.
"""

# ruff: noqa: SLF001 - the reasons are in the docstring; the requirement is pinned to the 3.0 series
from __future__ import annotations

import time
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.protocol.consumer import OffsetFetchRequest
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest

from mbframework.message import Position
from mbframework_kafka.connection import Connection, Left

#: Which version of our metadata it is.
_MARK = "mb1 "
#: From this version of the request on a broker says that an offset is about to change; Kafka 2.5.
_STABLE_SINCE = 7
#: Seconds until a coordinator that is not ready is asked again.
_AGAIN_S = 0.05


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


class Transactions:
    """Of one connection.

    :param name: the transactional id, with which the producer was made, and the consumer group.
    :param place: the topic that positions are committed for.
    """

    def __init__(self, connection: Connection, name: str, place: str) -> None:
        self._connection = connection
        self._manager = connection.producer._transaction_manager
        self._name = name
        self._place = TopicPartition(place, 0)

    def take_over(self, left: Left) -> None:
        """End whatever others have begun with our transactional id, in one way or the other; they cannot go on.

        :raises kafka.errors.KafkaError: it is refused; a :class:`~kafka.errors.KafkaTimeoutError`: no time is left.
        """
        self._wait(self._manager.initialize_transactions(), left, "to end the transactions before")

    def stored(self, left: Left) -> Position | None:
        """The position that is committed.

        :raises kafka.errors.KafkaError: we may not know, or the brokers are too old to tell; a
            :class:`~kafka.errors.KafkaTimeoutError`: no time is left.
        :raises ForeignOffset: see there.
        """
        asked = OffsetFetchRequest
        topic = asked.OffsetFetchRequestTopic(name=self._place.topic, partition_indexes=[self._place.partition])
        group_topic = asked.OffsetFetchRequestGroup.OffsetFetchRequestTopics(
            name=self._place.topic, partition_indexes=[self._place.partition]
        )
        group = asked.OffsetFetchRequestGroup(group_id=self._name, topics=[group_topic])
        request = asked(
            group_id=self._name, topics=[topic], groups=[group], require_stable=True,
            min_version=_STABLE_SINCE, max_version=8,
        )  # fmt: skip
        while True:
            try:
                return _position_in(self._connection.ask(request, left, self._coordinator(left)))
            except kafka_errors.RetriableError:
                # It is not ready, or not yet through with the transaction before. Nothing tells when it is.
                if not left():
                    raise
            time.sleep(_AGAIN_S)

    def begin(self, position: Position) -> Any:
        """Begin a transaction, and store the position in it; returns what :meth:`settled` takes."""
        self._manager.begin_transaction()
        offsets = {self._place: OffsetAndMetadata(position.sequence, to_metadata(position), -1)}
        request = self._manager.send_offsets_to_transaction(offsets, self._name)
        self._connection.producer._sender.wakeup()
        return request

    def settled(self, request: Any, left: Left) -> None:
        """Wait until the position is stored in the transaction. Raises as :meth:`take_over`."""
        self._wait(request, left, "to store the position")

    def commit(self, left: Left) -> None:
        """What is in the transaction, all of which is acknowledged, becomes visible. Raises as :meth:`take_over`; then
        it may have, or may still."""
        self._wait(self._manager.begin_commit(), left, "to commit")

    def abort(self, left: Left) -> None:
        """Nothing of it ever becomes visible. Raises as :meth:`take_over`; then the next one does this."""
        self._wait(self._manager.begin_abort(), left, "to abort")

    def trouble(self) -> BaseException | None:
        """Why the transaction cannot go on; None where nothing is wrong."""
        error = self._manager.last_error if self._manager.has_error() else None
        return None if error is None else self._named(error)

    # -- asking and waiting --------------------------------------------------------------------

    def _coordinator(self, left: Left) -> Any:
        """The node that keeps our group's offsets."""
        request = FindCoordinatorRequest(
            key=self._name, key_type=CoordinatorType.GROUP.value, coordinator_keys=[self._name]
        )
        answer = self._connection.ask(request, left)
        found = answer.coordinators[0] if answer.coordinators else answer
        # Raises what the broker said.
        return self._connection.cluster.add_coordinator(found, CoordinatorType.GROUP, self._name)

    def _wait(self, request: Any, left: Left, what: str) -> None:
        self._connection.producer._sender.wakeup()
        try:
            self._connection.wait(request._latch, left)
        except kafka_errors.KafkaTimeoutError:
            raise kafka_errors.KafkaTimeoutError(f"it took too long {what}") from None
        if request.exception is not None:
            raise self._named(request.exception)

    def _named(self, error: BaseException) -> BaseException:
        """What a person must change, which kafka-python puts into the text of an error of no kind."""
        text = str(error)
        if type(error) is kafka_errors.KafkaError and kafka_errors.TopicAuthorizationFailedError.__name__ in text:
            error = kafka_errors.TopicAuthorizationFailedError(self._place.topic)
        if type(error) is kafka_errors.KafkaError and kafka_errors.InvalidTransactionTimeoutError.__name__ in text:
            error = kafka_errors.KafkaConfigurationError(
                "send_timeout is longer than the brokers let a transaction last (transaction.max.timeout.ms)"
            )
        return error


def _position_in(answer: Any) -> Position | None:
    """Of an answer that is about one partition of one group."""
    group = answer.groups[0] if answer.API_VERSION >= 8 else answer
    found = group.topics[0].partitions[0] if group.topics else None
    for code in (group.error_code, found.error_code if found is not None else 0):
        if code:
            raise kafka_errors.for_code(code)
    return None if found is None else to_position(found.committed_offset, found.metadata or "")
