"""The Kafka provider with ``delivery=exactly-once``.

Promises:

- A batch is one transaction of Kafka, which stores the lane's position as well: both become visible, or neither does.
- A commit without an answer is never repeated blindly: the next connection ends the transaction in one way or the
  other, and then reads the position, which says which. So does every opening.
- Whoever has the lane's transactional id after us makes us stop, and not mix: a first time we look whether the position
  has moved, and go on where it has not, since a transaction that took too long is ended in the same way.
- A batch with a message that Kafka will never take leaves nothing. The message is looked for in transactions that are
  aborted.

Everything else is as :class:`~mbframework_kafka.provider.KafkaProvider` promises.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kafka import errors as kafka_errors
from kafka.util import ensure_valid_topic_name

from mbframework.deadline import Deadline
from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.fence import Fence
from mbframework.message import Batch, Position
from mbframework.provider import Context
from mbframework_kafka import KafkaOptions
from mbframework_kafka.connection import Connection
from mbframework_kafka.outcome import BLOCKS, Answers, NotAcknowledged, NotWritten, judge, own_topic
from mbframework_kafka.provider import KafkaProvider
from mbframework_kafka.transactions import ForeignOffset, Transactions, lane_name

#: Seconds by which a transaction may outlast our patience before the broker ends it.
_GRACE_S = 10.0
_FENCED = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)


class ExactlyOnceProvider(KafkaProvider):
    """See the module.

    :raises ConfigurationError: as there; or the options do not go together with transactions.
    """

    def __init__(self, options: KafkaOptions) -> None:
        super().__init__(options)
        try:
            ensure_valid_topic_name(options.position_topic)
        except ValueError as error:
            raise ConfigurationError(
                f"provider 'kafka': option 'position_topic': {error}", option="position_topic"
            ) from error
        if not self._settings["enable_idempotence"]:
            option = "client.enable_idempotence"
            raise ConfigurationError(
                f"provider 'kafka': option {option!r}: delivery=exactly-once needs it; leave it out", option=option
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
            "transactional_id": self._name(context),
            "transaction_timeout_ms": round(timeout_s * 1000),
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
        place = self._options.position_topic
        self._partitions(connection, place, patience)
        transactions = Transactions(connection, self._name(self._context), place)
        try:
            if self._fenced:
                # If somebody else delivers for this lane we do not want to stop them.
                self._meet(transactions.stored(patience.left))
            transactions.take_over(patience.left)
            found = transactions.stored(patience.left)
        except ForeignOffset as error:
            raise ProviderUnusable(
                f"the consumer group {self._name(self._context)!r} has an {error} for topic {place!r}, which is not one"
                " of ours; choose another transaction_prefix",
                provider="kafka",
            ) from error
        except BLOCKS as error:
            raise self._unusable(error) from error
        except _FENCED as error:
            raise self._stopped(error) from error
        except kafka_errors.KafkaError as error:
            raise SendFailed(f"Kafka does not let us begin transactions: {error}", provider="kafka") from error
        self._meet(found)
        self._fence.read(found)
        # Kafka removes offsets that were not stored for a while (offsets.retention.minutes), and changes none.
        self.position_tells = found is not None
        self._transactions = transactions
        self._facts = {**self._facts, "delivery": "exactly-once", "transactional_id": self._name(self._context)}

    def _meet(self, found: Position | None) -> None:
        """Judge the position that is there.

        :raises ProviderUnusable: somebody else has moved it.
        """
        if self._first is None or found == self._fence.expected:
            return
        if found is None:
            self._context.logger.warning(
                "kafka: the position of this lane is gone: offsets.retention.minutes have passed, or topic %s was"
                " deleted; going on at sequence %d",
                *(self._options.position_topic, self._first),
            )
            return
        self._fence.meet(found, self._first, self._context.logger, "kafka", self._context.went_back)

    def _stopped(self, error: BaseException) -> SendFailed | ProviderUnusable:
        """Somebody has our transactional id, or a transaction of ours took too long."""
        self._fenced += 1
        name = self._name(self._context)
        if self._fenced == 1:
            return SendFailed(
                f"the transactional id {name!r} was taken from us ({error}); looking by whom", provider="kafka"
            )
        return ProviderUnusable(
            f"another program uses the transactional id {name!r} ({error}): a copy of the buffer's directory seems to"
            " be in use; stop one of the two",
            provider="kafka",
        )

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver what of the batch is not there yet, as a whole or not at all.

        :raises SendFailed: nothing of it was delivered; ``uncertain`` where the answer to the commit did not come.
        :raises ProviderUnusable: a person must act, or somebody else delivers for this lane.
        """
        if not len(batch):
            return
        patience = Deadline(self._options.send_timeout, self._context.stopping, self._closed)
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
        wrong = misplaced | self._oversized(batch) | _own(batch, self._connect(patience).cluster.internal_topics)
        rejected = {i: why for i, why in wrong.items() if i in indices}
        if rejected:
            raise _rejection(rejected, indices)
        learned = dict(self._learned)
        answers = self._deliver(batch, indices, placed, patience)
        if not answers.errors and not answers.refused:
            return
        outcome = judge(indices, list(zip(batch.topics, placed, strict=True)), answers.errors)
        error = self._transactions.trouble() if self._transactions is not None else None
        if not isinstance(error, (*_FENCED, *BLOCKS)):
            error = outcome.error
        self._drop()
        if answers.too_large and learned != self._learned and patience.left():
            self._transact(batch, indices, patience)
            return
        if answers.refused or outcome.refused:
            rejected = answers.refused or self._search(batch, answers.suspects or indices, placed, patience)
            if rejected:
                raise _rejection(rejected, indices)
        if isinstance(error, _FENCED):
            raise self._stopped(error) from error
        if isinstance(error, BLOCKS):
            raise self._unusable(error) from error
        raise SendFailed(
            f"{len(indices)} of {len(batch)} messages were not delivered: {error}",
            undelivered=indices, uncertain=self._fence.attempted(batch.position), provider="kafka",
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

    def _deliver(self, batch: Batch, indices: Sequence[int], partitions: Sequence[int], patience: Deadline) -> Answers:
        """One transaction."""
        try:
            self._connect(patience)
            transactions = self._transactions
            if transactions is None:
                raise SendFailed("closed while connecting to Kafka", provider="kafka")
            stored = transactions.begin(batch.position)
        except (SendFailed, ProviderUnusable, kafka_errors.KafkaError) as error:
            return Answers(dict.fromkeys(indices, NotWritten(str(error))))
        answers = super()._deliver(batch, indices, partitions, patience)
        if answers.errors or answers.refused:
            return answers
        try:
            transactions.settled(stored, patience.left)
            if self._searching:
                transactions.abort(patience.left)
            else:
                self._fence.attempt(batch.position)
                transactions.commit(patience.left)
                self._fence.stored(batch.position)
                self._fenced = 0
        except kafka_errors.KafkaTimeoutError:
            # Whoever waited may have stopped, and not the broker.
            answers.errors.update(dict.fromkeys(indices, NotAcknowledged(patience.why())))
        except kafka_errors.KafkaError as error:
            answers.errors.update(dict.fromkeys(indices, error))
        return answers

    def _hint(self, error: BaseException) -> str:
        name, place = self._name(self._context), self._options.position_topic
        if isinstance(error, kafka_errors.TransactionalIdAuthorizationFailedError):
            return f"; grant Write and Describe on the transactional id {name!r}, or on those that begin so"
        if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
            return f"; grant Read on the consumer group {name!r}, or on those that begin so"
        if isinstance(error, kafka_errors.TopicAuthorizationFailedError) and place in str(error):
            return f"; grant Read on the topic {place!r}, or name another position_topic"
        return super()._hint(error)


def _own(batch: Batch, internal: Collection[str]) -> dict[int, str]:
    """The messages to Kafka's own topics, of which it says in a transaction that we have no right to them."""
    if set(batch.topics).isdisjoint(internal):
        return {}
    return {i: own_topic(topic) for i, topic in enumerate(batch.topics) if topic in internal}


def _rejection(rejected: Mapping[int, str], indices: Sequence[int]) -> SendFailed:
    return SendFailed(
        f"{len(rejected)} of {len(indices)} messages were rejected, the first: {rejected[min(rejected)]}",
        undelivered=[i for i in indices if i not in rejected], rejected=rejected, provider="kafka",
    )  # fmt: skip
