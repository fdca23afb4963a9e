"""The Kafka provider on confluent-kafka with ``delivery=exactly-once``.

Promises:

- A batch is one transaction of Kafka, which stores the lane's position as well: both become visible, or neither does.
- A commit without an answer is never repeated blindly: the next connection ends the transaction in one way or the
  other, and then reads the position, which says which. So does every opening.
- Whoever has the lane's transactional id after us makes us stop, and not mix: a first time we look whether the position
  has moved, and go on where it has not, since a transaction that took too long is ended in the same way.
- A batch with a message that Kafka will never take leaves nothing. The message is looked for in transactions that are
  aborted.

Everything else is as :class:`~mbframework_confluent.provider.ConfluentProvider` promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError

from mbframework.deadline import Deadline
from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.fence import Fence
from mbframework.message import Batch, Position
from mbframework.provider import Context
from mbframework_confluent import ConfluentOptions
from mbframework_confluent.connection import Connection
from mbframework_confluent.outcome import (
    Answer,
    Blocked,
    Fenced,
    NotAcknowledged,
    NotStored,
    NotWritten,
    OwnTopic,
    Refused,
    judge,
)
from mbframework_confluent.placement import OWN_TOPICS, illegal
from mbframework_confluent.provider import ConfluentProvider
from mbframework_confluent.transactions import ForeignOffset, Transactions, lane_name

#: Seconds by which a transaction may outlast our patience before the broker ends it.
_GRACE_S = 10.0


class ExactlyOnceProvider(ConfluentProvider):
    """See the module.

    :raises ConfigurationError: as there; or the options do not go together with transactions.
    """

    def __init__(self, options: ConfluentOptions) -> None:
        super().__init__(options)
        if why := illegal(options.position_topic):
            raise ConfigurationError(f"provider 'confluent': option 'position_topic': {why}", option="position_topic")
        if str(self._settings["enable.idempotence"]).lower() != "true":
            option = "client.enable.idempotence"
            raise ConfigurationError(
                f"provider 'confluent': option {option!r}: delivery=exactly-once needs it; leave it out", option=option
            )
        self._opening_s += options.request_timeout
        self._fence = Fence()
        self._transactions: Transactions | None = None
        #: The sequence that is to be sent next; None while that is not known.
        self._first: int | None = None
        #: How often in a row somebody took our transactional id.
        self._fenced = 0
        #: Transactions are aborted: a message that is refused is looked for.
        self._searching = False

    def open(self, context: Context) -> None:
        """Reach the cluster, end what was begun with the lane's transactional id, then read the position."""
        timeout_s = self._options.send_timeout + _GRACE_S
        self._settings |= {
            "transactional.id": self._name(context),
            "transaction.timeout.ms": round(timeout_s * 1000),
        }
        self._first = None
        self._fenced = 0
        super().open(context)

    def committed(self) -> Position | None:
        """The position in the last transaction that is known to be committed."""
        return self._fence.expected

    def _name(self, context: Context) -> str:
        return lane_name(self._options.transaction_prefix, context.buffer_id, context.lane)

    # -- taking over ---------------------------------------------------------------------------

    def _connect(self, patience: Deadline) -> Connection:
        if self._connection is not None:
            return self._connection
        connection = super()._connect(patience)
        try:
            self._take_over(connection, patience.at_most(self._options.request_timeout))
        except BaseException:
            self._drop()
            raise
        return connection

    def _take_over(self, connection: Connection, patience: Deadline) -> None:
        """End the transactions before, and learn which of them were committed."""
        place, name = self._options.position_topic, self._name(self._context)
        self._partitions(connection, place, patience)
        transactions = Transactions(connection, name, place, self._settings)
        try:
            if self._fenced:
                # If somebody else delivers for this lane we do not want to stop them.
                self._meet(transactions.stored(patience.left))
            transactions.take_over(patience.left)
            found = transactions.stored(patience.left)
        except ForeignOffset as error:
            raise ProviderUnusable(
                f"the consumer group {name!r} has an {error} for topic {place!r}, which is not one of ours; choose"
                " another transaction_prefix",
                provider="confluent",
            ) from error
        except Blocked as error:
            raise self._unusable(error) from error
        except Fenced as error:
            raise self._stopped(error) from error
        except Answer as error:
            raise SendFailed(f"Kafka does not let us begin transactions: {error}", provider="confluent") from error
        self._meet(found)
        self._fence.read(found)
        # Kafka removes offsets that were not stored for a while (offsets.retention.minutes), and changes none.
        self.position_tells = found is not None
        self._transactions = transactions
        self._facts = {**self._facts, "delivery": "exactly-once", "transactional_id": name}

    def _meet(self, found: Position | None) -> None:
        """Judge the position that is there.

        :raises ProviderUnusable: somebody else has moved it.
        """
        if self._first is None or found == self._fence.expected:
            return
        if found is None:
            self._context.logger.warning(
                "confluent: the position of this lane is gone: offsets.retention.minutes have passed, or topic %s was"
                " deleted; going on at sequence %d",
                *(self._options.position_topic, self._first),
            )
            return
        self._fence.meet(found, self._first, self._context.logger, "confluent", self._context.went_back)

    def _stopped(self, error: BaseException) -> SendFailed | ProviderUnusable:
        """Somebody has our transactional id, or a transaction of ours took too long."""
        self._fenced += 1
        name = self._name(self._context)
        if self._fenced == 1:
            return SendFailed(
                f"the transactional id {name!r} was taken from us ({error}); looking by whom", provider="confluent"
            )
        return ProviderUnusable(
            f"another program uses the transactional id {name!r} ({error}): a copy of the buffer's directory seems to"
            " be in use; stop one of the two",
            provider="confluent",
        )

    # -- sending -------------------------------------------------------------------------------

    def _send(self, batch: Batch, patience: Deadline) -> None:
        """Deliver what of the batch is not there yet, as a whole or not at all."""
        if (start := self._fence.start(batch.sequences)) == len(batch):
            return
        self._first = batch.sequences[start]
        # A new connection learns what became of the transaction before.
        self._connect(patience)
        if (start := self._fence.start(batch.sequences)) == len(batch):
            return
        self._first = batch.sequences[start]
        self._transact(batch, range(start, len(batch)), patience)

    def _transact(self, batch: Batch, indices: range, patience: Deadline) -> None:
        placed, misplaced = self._place(batch, patience)
        wrong = misplaced | self._oversized(batch) | _own(batch)
        rejected = {i: why for i, why in wrong.items() if i in indices}
        if rejected:
            raise _rejection(rejected, indices)
        errors = self._deliver(batch, indices, placed, patience)
        if not errors:
            return
        error = judge(indices, list(zip(batch.topics, placed, strict=True)), errors).error
        if suspects := [i for i in indices if isinstance(errors.get(i), Refused)]:
            limit = self._record_batch
            if rejected := self._search(batch, suspects, placed, patience):
                raise _rejection(rejected, indices)
            if limit != self._record_batch and patience.left():
                # Smaller record batches were all that it needed.
                self._transact(batch, indices, patience)
                return
        if isinstance(error, NotStored) and patience.left():
            # librdkafka may have lost the way to the group's coordinator; a new producer finds it.
            self._transact(batch, indices, patience)
            return
        if isinstance(error, Fenced):
            raise self._stopped(error) from error
        if isinstance(error, Blocked):
            raise self._unusable(error) from error
        raise SendFailed(
            f"{len(indices)} of {len(batch)} messages were not delivered: {error}",
            undelivered=indices, uncertain=self._fence.attempted(batch.position), provider="confluent",
        ) from error  # fmt: skip

    def _search(
        self, batch: Batch, suspects: Sequence[int], placed: Sequence[int], patience: Deadline
    ) -> dict[int, str]:
        """The messages among ``suspects`` that Kafka refuses, and why. Nothing stays."""
        rejected: dict[int, str] = {}
        self._searching = True
        try:
            self._settle(batch, suspects, placed, rejected, patience)
        finally:
            self._searching = False
        return rejected

    def _deliver(
        self, batch: Batch, indices: Sequence[int], partitions: Sequence[int], patience: Deadline
    ) -> dict[int, Answer]:
        """One transaction."""
        try:
            self._connect(patience)
        except (SendFailed, ProviderUnusable) as error:
            return dict.fromkeys(indices, NotWritten(str(error)))
        transactions = self._transactions
        assert transactions is not None
        try:
            transactions.begin()
            if errors := super()._deliver(batch, indices, partitions, patience):
                return errors
            if self._searching:
                transactions.abort(patience.left)
            else:
                transactions.store(batch.position, patience.at_most(self._options.connect_timeout).left)
                self._fence.attempt(batch.position)
                transactions.commit(patience.left)
                self._fence.stored(batch.position)
                self._fenced = 0
        except Answer as error:
            self._drop()
            if isinstance(error, NotAcknowledged):
                # Whoever waited may have stopped, and not the broker.
                error = NotAcknowledged(patience.why())
            return dict.fromkeys(indices, NotWritten(str(error)) if isinstance(error, Refused) else error)
        except BaseException:
            self._drop()
            raise
        return {}

    def _hint(self, answer: Answer, code: int | None) -> str:
        name, place = self._name(self._context), self._options.position_topic
        if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return f"; grant Write and Describe on the transactional id {name!r}, or on those that begin so"
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return f"; grant Read on the consumer group {name!r}, or on those that begin so"
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED and place in str(answer):
            return f"; grant Read on the topic {place!r}, or name another position_topic"
        if code == KafkaError.INVALID_TRANSACTION_TIMEOUT:
            return "; lower send_timeout, or let transactions last longer (transaction.max.timeout.ms)"
        return super()._hint(answer, code)


def _own(batch: Batch) -> dict[int, str]:
    """The messages to Kafka's own topics, of which it says in a transaction that we have no right to them."""
    if OWN_TOPICS.isdisjoint(batch.topics):
        return {}
    return {i: f"refused by Kafka: {OwnTopic(t)}" for i, t in enumerate(batch.topics) if t in OWN_TOPICS}


def _rejection(rejected: Mapping[int, str], indices: Sequence[int]) -> SendFailed:
    return SendFailed(
        f"{len(rejected)} of {len(indices)} messages were rejected, the first: {rejected[min(rejected)]}",
        undelivered=[i for i in indices if i not in rejected], rejected=rejected, provider="confluent",
    )  # fmt: skip
