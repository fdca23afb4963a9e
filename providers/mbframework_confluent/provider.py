"""The Kafka provider on confluent-kafka.

Promises:

- Ordering domain: a partition. Messages reach it in the batch's order, also across failures and new producers.
- ``send()`` returns when all messages are acknowledged, and within ``send_timeout`` in any case, plus a few seconds.
- A message that Kafka will never take is rejected alone. Missing rights and unknown topics block; they reject nothing.
- After a failure the producer is thrown away, and the next ``send()`` makes a new one: librdkafka keeps what it was
  given and would send it whenever the broker returns, before or after our own retry.

Threads: the sender's, and ``close()`` from any. librdkafka's own threads do the network; they run no Python.
"""

# ruff: noqa: SLF001 - so librdkafka's own errors are named
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from mbframework.deadline import Deadline
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.tls import tls_fact, tls_hint, warn_unverified
from mbframework.provider import Context, Provider
from mbframework_confluent import ConfluentOptions
from mbframework_confluent.connection import Connection, NotKnown
from mbframework_confluent.outcome import (
    Answer,
    Blocked,
    NotAcknowledged,
    NotWritten,
    Outcome,
    OwnTopic,
    Refused,
    TooLarge,
    judge,
)
from mbframework_confluent.placement import Partitions, illegal, place
from mbframework_confluent.settings import producer_settings

#: What the record batch adds to a message at most, beyond its key, value and header block, in bytes.
_OVERHEAD = 128
#: Bytes; what is refused as too large in a smaller record batch is found one by one.
_SMALLEST_RECORD_BATCH = 4_096
#: Seconds that an idle lane waits for an answer.
_LOOK_S = 0.5
#: In librdkafka's words, where a broker hangs up instead of telling its version.
_WANTS_TLS = "security.protocol"


class ConfluentProvider(Provider):
    """Delivers a lane to Kafka; see the module.

    :raises ConfigurationError: the options do not make sense to librdkafka; nothing was connected.
    """

    #: librdkafka does not survive a fork: its threads are not there in the child, its locks may be held there.
    fork_safe = False

    def __init__(self, options: ConfluentOptions) -> None:
        self._options = options
        self._settings = producer_settings(options)
        #: Bytes; less than asked for once a topic has refused one of that size.
        self._record_batch = options.record_batch
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._connection: Connection | None = None
        self._heard: dict[str, float] = {}
        self._occupancy = Occupancy(self._drop, "confluent", "Kafka")
        # The first use connects, if open() has not.
        self._occupancy.open()
        self._facts: dict[str, str] = {}
        self._cluster_id = ""
        #: Seconds that opening may take.
        self._opening_s = options.connect_timeout
        self.max_message_bytes = options.max_request_size - _OVERHEAD

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        """Reach the cluster once, so that a wrong address, password or certificate shows now."""
        self._context = context
        self._occupancy.open()
        self._record_batch = self._options.record_batch
        warn_unverified(self._options, "confluent", context.logger)
        with self._occupancy.held():
            # Unlike a batch, this is nothing to wait for once the buffer closes.
            self._connect(Deadline(self._opening_s, self._occupancy.closed, context.stopping))

    def destination(self) -> str:
        """The id of the cluster."""
        return self._cluster_id

    def describe(self) -> Mapping[str, str]:
        """Path, versions, limits, security."""
        return self._facts

    def close(self, timeout: float) -> None:
        """End the producer. A ``send()`` in another thread fails soon after, as uncertain, and ends it."""
        until = time.monotonic() + timeout
        self._occupancy.close(timeout, drop=lambda: self._drop(max(0.1, until - time.monotonic())))

    def idle(self) -> None:
        """Let librdkafka speak. Where it says that all connections are gone, ask; where nobody answers, so it is."""
        with self._occupancy.held():
            connection = self._connection
            if connection is None:
                return
            connection.serve()
            if refusal := connection.heard.refusal:
                self._drop()
                raise SendFailed(f"Kafka refuses us: {refusal}", undelivered=(), provider="confluent") from refusal
            if connection.heard.down and not connection.answers(min(_LOOK_S, self._options.connect_timeout)):
                connection.serve()
                trouble = connection.heard.trouble or "all connections are lost"
                raise SendFailed(f"Kafka is gone: {trouble}", undelivered=(), provider="confluent")

    def _patience(self, timeout_s: float) -> Deadline:
        return Deadline(timeout_s, self._context.stopping, self._occupancy.closed)

    def _connect(self, patience: Deadline) -> Connection:
        if self._connection is not None:
            return self._connection
        settings = {**self._settings, "batch.size": self._record_batch}
        try:
            connection = Connection(settings, self._context.logger, self._heard)
        except KafkaException as error:
            # A file that has gone since, such as a certificate.
            raise ProviderUnusable(
                f"librdkafka refuses these options: {error.args[0].str()}", provider="confluent"
            ) from error
        cluster_id = None
        try:
            cluster_id = connection.reach(patience.at_most(self._options.connect_timeout).left)
        finally:
            if cluster_id is None:
                connection.end()
        if cluster_id is None:
            raise self._not_reached(connection)
        self._connection = connection
        self._cluster_id = cluster_id
        self._facts = {
            "path": "produce()",
            "client": f"confluent-kafka {confluent_kafka.version()}",
            "librdkafka": confluent_kafka.libversion()[0],
            "cluster": cluster_id,
            "max_request_size": f"{self._options.max_request_size} bytes",
            "security": f"{tls_fact(self._options)}, sasl {self._settings.get('sasl.mechanism', 'off')}",
        }
        return connection

    def _not_reached(self, connection: Connection) -> SendFailed | ProviderUnusable:
        heard = connection.heard
        if why := heard.refusal or (heard.dead if isinstance(heard.dead, Blocked) else None):
            return self._unusable(why)
        hint = tls_hint(self._options, heard.trouble, met=bool(self._facts))
        if heard.trouble and _WANTS_TLS not in heard.trouble:
            # Without TLS librdkafka would have said so.
            said = heard.trouble + (hint if self._options.tls else "")
            return SendFailed(f"Kafka cannot be reached: {said}", provider="confluent")
        return SendFailed(
            f"{', '.join(self._options.hosts)} takes connections, but does not answer as a Kafka broker within"
            f" {self._options.connect_timeout:g} s{heard.trouble and ': '}{heard.trouble}{hint}",
            provider="confluent",
        )

    def _unusable(self, answer: Answer) -> ProviderUnusable:
        code = answer.code if isinstance(answer, Blocked) else None
        if code == KafkaError._SSL:
            return ProviderUnusable(
                f"the broker's certificate was refused: {answer}; check tls_ca and the host names", provider="confluent"
            )
        return ProviderUnusable(f"Kafka refuses us: {answer}{self._hint(answer, code)}", provider="confluent")

    def _hint(self, answer: Answer, code: int | None) -> str:
        hint = ""
        if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            hint = f"; check user name, password and mechanism ({self._settings.get('sasl.mechanism')})"
        elif code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
            hint = "; grant IdempotentWrite on the cluster, or set client.enable.idempotence=false"
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            hint = "; grant Write and Describe on the topic"
        return hint

    def _drop(self, timeout: float = 1.0) -> None:
        """Throw the producer away, with whatever it still holds; the next use makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end(timeout)

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are a suffix of each partition; ``uncertain`` after a timeout.
        :raises ProviderUnusable: a topic is unknown, or we may not write, and nothing was delivered.
        """
        if not len(batch):
            return
        with self._occupancy.held():
            self._send(batch, self._patience(self._options.send_timeout))

    def _send(self, batch: Batch, patience: Deadline) -> None:
        rejected = self._oversized(batch)
        partitions, misplaced = self._place(batch, patience)
        rejected = misplaced | rejected
        indices = [i for i in range(len(batch)) if i not in rejected] if rejected else range(len(batch))
        outcome = self._settle(batch, indices, partitions, rejected, patience)
        error = outcome.error
        delivered = len(batch) - len(outcome.undelivered) - len(rejected)
        if isinstance(error, Blocked) and not (delivered or rejected or outcome.uncertain):
            raise self._unusable(error) from error
        if outcome.undelivered:
            raise SendFailed(
                f"{len(outcome.undelivered)} of {len(batch)} messages were not delivered: {error}",
                undelivered=outcome.undelivered, rejected=rejected, uncertain=outcome.uncertain, provider="confluent",
            ) from error  # fmt: skip
        if rejected:
            first = min(rejected)
            raise SendFailed(
                f"{len(rejected)} of {len(batch)} messages were rejected, the first: {rejected[first]}",
                undelivered=(), rejected=rejected, provider="confluent",
            )  # fmt: skip

    def _oversized(self, batch: Batch) -> dict[int, str]:
        """Messages above our own limit: they must not reach the producer."""
        limit = self._options.max_request_size - _OVERHEAD
        rejected: dict[int, str] = {}
        # Nearly always the sum of the longest of each column says that nothing is too large.
        if sum(map(_longest, (batch.keys, batch.values, batch.header_blocks))) <= limit:
            return rejected
        for index, (key, value, headers) in enumerate(zip(batch.keys, batch.values, batch.header_blocks, strict=True)):
            size = len(value or b"") + len(key or b"") + len(headers or b"")
            if size > limit:
                rejected[index] = f"{size} bytes; max_request_size lets {limit} through"
        return rejected

    def _place(self, batch: Batch, patience: Deadline) -> tuple[list[int], dict[int, str]]:
        """The partition of every message, and those that have no place. Waits for unknown topics."""
        connection = self._connect(patience)
        topics = dict.fromkeys(batch.topics)
        wrong = {topic: reason for topic in topics if (reason := illegal(topic))}
        asked = [topic for topic in topics if topic not in wrong]
        placed, misplaced = place(batch, {topic: self._partitions(connection, topic, patience) for topic in asked})
        if misplaced:
            # The topic may have grown since we last looked.
            connection.forget()
            placed, misplaced = place(batch, {topic: self._partitions(connection, topic, patience) for topic in asked})
        if wrong:
            misplaced |= {i: wrong[topic] for i, topic in enumerate(batch.topics) if topic in wrong}
        return placed, misplaced

    def _partitions(self, connection: Connection, topic: str, patience: Deadline) -> Partitions:
        limit = patience.at_most(self._options.connect_timeout)
        unknown = False
        while True:
            try:
                found = connection.partitions(topic, limit.left)
            except NotKnown:
                # The cluster may be making it.
                unknown = True
                if self._context.stopping.wait(min(0.1, limit.left())) or not limit.left():
                    break
                continue
            except Answer as error:
                self._drop()
                if isinstance(error, Blocked):
                    raise self._unusable(error) from error
                raise SendFailed(
                    f"the partitions of topic {topic!r} are not known: {error}", provider="confluent"
                ) from error
            if found is not None:
                return found
            break
        self._drop()
        if refusal := connection.heard.refusal:
            raise self._unusable(refusal) from refusal
        if not unknown:
            trouble = f": {connection.heard.trouble}" if connection.heard.trouble else ""
            raise SendFailed(f"Kafka does not answer when asked for topic {topic!r}{trouble}", provider="confluent")
        automatic = "did not create it" if self._options.create_topics else "was not to create it (create_topics)"
        # Positions have no messages that others would wait behind.
        lane = "" if topic == self._options.position_topic else ", or give it a lane of its own: the others wait for it"
        raise ProviderUnusable(
            f"topic {topic!r} does not exist, and the cluster {automatic}; create it with"
            f" kafka-topics.sh --create --topic {topic}{lane}",
            provider="confluent",
        )

    def _settle(
        self, batch: Batch, indices: Sequence[int], partitions: Sequence[int], rejected: dict[int, str],
        patience: Deadline,
    ) -> Outcome:  # fmt: skip
        """Deliver what can be delivered of ``indices``, and add to ``rejected`` what the broker refuses.

        Kafka refuses a record batch as a whole, and librdkafka then gives up all others. The messages of the refused
        one are sent again, in smaller record batches or in halves, in order, until the one at fault stands alone.
        """
        waiting = [indices]
        while waiting:
            part = waiting.pop()
            errors = self._deliver(batch, part, partitions, patience)
            if not errors:
                continue
            domains = list(zip(batch.topics, partitions, strict=True))
            suspects = [i for i in part if isinstance(errors.get(i), Refused)]
            alone = {i: f"refused by Kafka: {errors[i]}" for i in suspects if self._alone(batch, i, part, errors[i])}
            rejected.update(alone)
            outcome = judge([i for i in part if i not in alone], domains, errors)
            left = outcome.undelivered
            if not suspects or isinstance(outcome.error, Blocked) or (left and not patience.left()):
                # Partitions that would still have worked wait too: the next send() takes all of them up again.
                outcome.undelivered = sorted([*left, *(i for later in waiting for i in later)])
                return outcome
            if alone or self._shrunk(errors[i] for i in suspects):
                again = [left]
            else:
                half = (len(suspects) + 1) // 2
                rest = set(left).difference(suspects)
                again = [suspects[:half], suspects[half:], [i for i in left if i in rest]]
            waiting += [later for later in reversed(again) if later]
        return Outcome()

    def _alone(self, batch: Batch, index: int, part: Sequence[int], error: Answer) -> bool:
        """Whether a refused message is itself at fault, and not another one of its record batch."""
        if len(part) == 1 or isinstance(error, OwnTopic):
            return True
        size = len(batch.values[index] or b"") + len(batch.keys[index] or b"")
        return isinstance(error, TooLarge) and size > self._record_batch

    def _shrunk(self, errors: Iterator[Answer]) -> bool:
        """Whether smaller record batches may help, and will be made."""
        if not any(isinstance(error, TooLarge) for error in errors) or self._record_batch <= _SMALLEST_RECORD_BATCH:
            return False
        self._record_batch = max(self._record_batch // 4, _SMALLEST_RECORD_BATCH)
        return True

    def _deliver(
        self, batch: Batch, indices: Sequence[int], partitions: Sequence[int], patience: Deadline
    ) -> dict[int, Answer]:
        """One attempt: what was not acknowledged, and why."""
        try:
            connection = self._connect(patience)
        except (SendFailed, ProviderUnusable) as error:
            # Earlier parts of the batch may have been delivered: they must not be counted out.
            return dict.fromkeys(indices, NotWritten(str(error)))
        try:
            connection.hand_over(batch, indices, partitions)
            errors = connection.settle(indices, patience.left, lambda: NotAcknowledged(patience.why()))
        except BaseException:
            # It holds messages that would still go out.
            self._drop()
            raise
        if errors:
            self._drop()
        return errors


def _longest(column: Sequence[bytes | None]) -> int:
    return max(map(len, filter(None, column)), default=0)
