"""The Kafka provider.

Promises:

- Ordering domain: a partition. Messages reach it in the batch's order, also across failures and rebuilt producers.
- ``send()`` returns when all messages are acknowledged, and within ``send_timeout`` in any case, plus a few seconds.
- A message that Kafka will never take is rejected alone. Missing rights and unknown topics block; they reject nothing.
- After an error of the broker the producer is thrown away, and the next ``send()`` makes a new one: kafka-python's
  idempotent producer is dead for good after one such error, or wedged after an expired batch.

kafka-python's producer keeps what it was given and would send it whenever the broker returns. Whoever stops waiting
must therefore end the producer, or the retry would overtake or repeat it.

Threads: the sender's, and ``close()`` from any. kafka-python's own thread does the network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Event

import kafka
from kafka import errors as kafka_errors
from kafka.util import ensure_valid_topic_name

from mbframework.deadline import Deadline
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework.plugins.tls import tls_fact, tls_hint, warn_unverified
from mbframework.provider import Context, Provider
from mbframework_kafka import KafkaOptions, bulk
from mbframework_kafka.connection import Connection
from mbframework_kafka.delivery import Delivery, Receipt, SendPath
from mbframework_kafka.outcome import BLOCKS, Answers, NotAcknowledged, Outcome, broken_off, judge, refusal
from mbframework_kafka.placement import place
from mbframework_kafka.reach import CertificateRefused, addresses, obstacle
from mbframework_kafka.settings import producer_settings

#: What the record batch adds to a message at most, beyond its key, value and header block, in bytes.
_OVERHEAD = 128
#: Bytes; messages above it are found one by one.
_SMALLEST_LEARNED = 4_096
#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.1


class KafkaProvider(Provider):
    """Delivers a lane to Kafka; see the module.

    :raises ConfigurationError: the options do not make sense to kafka-python; nothing was connected.
    :raises MissingRequirement: the compression's library is not installed.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._settings = producer_settings(options)
        self._delivery: Delivery = SendPath("not connected yet")
        self._told = ""
        #: The largest record batch by topic, where the cluster does not tell and has refused a larger one; bytes.
        self._learned: dict[str, int] = {}
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._connection: Connection | None = None
        self._closed = Event()
        self._facts: dict[str, str] = {}
        self._cluster_id = ""
        #: Seconds that opening may take: to find out who answers, and to be answered.
        self._opening_s = 2 * options.connect_timeout
        self.max_message_bytes = options.max_request_size - _OVERHEAD

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        """Reach the cluster once, so that a wrong address, password or certificate shows now."""
        self._context = context
        self._closed.clear()
        self._told = ""
        self._learned.clear()
        warn_unverified(self._options, "kafka", context.logger)
        # Unlike a batch, this is nothing to wait for once the buffer closes.
        self._connect(Deadline(self._opening_s, self._closed, context.stopping))

    def destination(self) -> str:
        """The id of the cluster."""
        return self._cluster_id

    def describe(self) -> Mapping[str, str]:
        """Path, versions, limits, security."""
        return self._facts

    def close(self, timeout: float) -> None:
        """End the producer. A ``send()`` in another thread fails soon after, as uncertain."""
        self._closed.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end(timeout)

    def idle(self) -> None:
        """Without a standing connection, knock at every known broker; where none answers the cluster is gone."""
        connection = self._connection
        if connection is not None and (refusal := connection.refusal()):
            self._drop()
            raise SendFailed(f"Kafka refuses us: {refusal}", undelivered=(), provider="kafka") from refusal
        if connection is None or connection.connected() or self._settings.get("proxy_url"):
            return
        # Without TLS: whether somebody listens is all that matters, and a handshake costs the broker more.
        places = {*connection.brokers(), *addresses(self._options.hosts)}
        if reason := obstacle(places, self._options.connect_timeout / len(places)):
            raise SendFailed(f"Kafka is gone: {reason}", undelivered=(), provider="kafka")

    def _connect(self, patience: Deadline) -> Connection:
        if self._connection is not None:
            return self._connection
        if self._closed.is_set():
            raise SendFailed("the provider is closed; open() it first", provider="kafka")
        # kafka-python takes its time to find out that nobody is there, and logs each attempt as an error.
        self._knock()
        try:
            connection = Connection(self._settings, patience.at_most(self._options.connect_timeout).left)
        except BLOCKS as error:
            raise self._unusable(error) from error
        except kafka_errors.KafkaError as error:
            hint = tls_hint(self._options, str(error), met=bool(self._facts))
            raise SendFailed(
                f"{', '.join(self._options.hosts)} takes connections, but does not answer as a Kafka broker within"
                f" {self._options.connect_timeout:g} s: {error}{hint}",
                provider="kafka",
            ) from error
        except (ValueError, RuntimeError) as error:
            # Options that contradict each other, or a broker too old for them: only known now.
            raise ProviderUnusable(f"kafka-python refuses these options: {error}", provider="kafka") from error
        self._connection = connection
        if self._closed.is_set():
            # close() came while we connected, and found nothing to end.
            self.close(0.0)
            raise SendFailed("closed while connecting to Kafka", provider="kafka")
        self._cluster_id = connection.cluster_id
        self._delivery = self._path(connection)
        self._facts = {
            "path": self._delivery.path,
            "client": f"kafka-python {kafka.__version__}",
            "cluster": connection.cluster_id,
            "broker": connection.version,
            "max_request_size": f"{self._options.max_request_size} bytes",
            "security": f"{tls_fact(self._options)}, sasl {self._settings.get('sasl_mechanism', 'off')}",
        }
        return connection

    def _path(self, connection: Connection) -> Delivery:
        """In bulk where that can be done; where not, say so once."""
        if not self._options.bulk:
            return SendPath("bulk=no")
        reason = bulk.obstacle(connection.producer)
        if not reason:
            return bulk.BulkPath(connection.producer)
        if reason != self._told:
            self._told = reason
            self._context.logger.warning("kafka: one send() a message instead of whole record batches: %s", reason)
        return SendPath(reason)

    def _unusable(self, error: BaseException) -> ProviderUnusable:
        hint = self._hint(error)
        return ProviderUnusable(f"Kafka refuses us: {error}{hint}", provider="kafka")

    def _hint(self, error: BaseException) -> str:
        hint = ""
        if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
            hint = f"; check user name, password and mechanism ({self._settings.get('sasl_mechanism')})"
        elif isinstance(error, kafka_errors.ClusterAuthorizationFailedError):
            hint = "; grant IdempotentWrite on the cluster, or set client.enable_idempotence=false"
        elif isinstance(error, kafka_errors.AuthorizationError):
            hint = "; grant Write and Describe on the topic"
        return hint

    def _knock(self) -> None:
        """Return where a broker takes connections, and with TLS shows a certificate that we accept."""
        if self._settings.get("proxy_url"):
            return
        hosts = self._options.hosts
        timeout_s = self._options.connect_timeout / len(hosts)
        try:
            reason = obstacle(addresses(hosts), timeout_s, self._settings.get("ssl_context"))
        except CertificateRefused as refused:
            raise ProviderUnusable(
                f"the broker's certificate was refused: {refused}; check tls_ca and the host names", provider="kafka"
            ) from refused
        if reason is not None:
            # Without TLS whoever knocks was not let in at all.
            hint = tls_hint(self._options, reason, met=bool(self._facts)) if self._options.tls else ""
            raise SendFailed(f"Kafka cannot be reached: {reason}{hint}", provider="kafka")

    def _drop(self) -> None:
        """Throw the producer away, with whatever it still holds; the next use makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.end()

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are a suffix of each partition; ``uncertain`` after a timeout.
        :raises ProviderUnusable: a topic is unknown, or we may not write, and nothing was delivered.
        """
        patience = Deadline(self._options.send_timeout, self._context.stopping, self._closed)
        rejected = self._oversized(batch)
        partitions, misplaced = self._place(batch, patience)
        rejected.update({index: why for index, why in misplaced.items() if index not in rejected})
        indices = [i for i in range(len(batch)) if i not in rejected] if rejected else range(len(batch))
        outcome = self._settle(batch, indices, partitions, rejected, patience)
        error = outcome.error
        delivered = len(batch) - len(outcome.undelivered) - len(rejected)
        if isinstance(error, BLOCKS) and not (delivered or rejected or outcome.uncertain):
            raise self._unusable(error) from error
        if outcome.undelivered:
            raise SendFailed(
                f"{len(outcome.undelivered)} of {len(batch)} messages were not delivered: {error}",
                undelivered=outcome.undelivered, rejected=rejected, uncertain=outcome.uncertain, provider="kafka",
            ) from error  # fmt: skip
        if rejected:
            first = min(rejected)
            raise SendFailed(
                f"{len(rejected)} of {len(batch)} messages were rejected, the first: {rejected[first]}",
                undelivered=(), rejected=rejected, provider="kafka",
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
        partitions: dict[str, list[int]] = {}
        illegal: dict[str, str] = {}
        for topic in dict.fromkeys(batch.topics):
            try:
                ensure_valid_topic_name(topic)
            except ValueError as error:
                illegal[topic] = str(error)
            else:
                partitions[topic] = self._partitions(connection, topic, patience)
        writable = {topic: connection.writable(topic) for topic in partitions}
        placed, misplaced = place(batch, partitions, writable)
        if misplaced and connection.refresh(self._options.connect_timeout):
            # The topic may have grown since we last looked.
            grown = {topic: connection.partitions(topic) or known for topic, known in partitions.items()}
            placed, misplaced = place(batch, grown, writable)
        if illegal:
            misplaced |= {i: illegal[topic] for i, topic in enumerate(batch.topics) if topic in illegal}
        return placed, misplaced

    def _partitions(self, connection: Connection, topic: str, patience: Deadline) -> list[int]:
        deadline = time.monotonic() + self._options.connect_timeout
        while True:
            try:
                found = connection.partitions(topic)
            except BLOCKS as error:
                self._drop()
                raise self._unusable(error) from error
            except kafka_errors.KafkaError as error:
                self._drop()
                raise SendFailed(
                    f"the partitions of topic {topic!r} are not known: {error}", provider="kafka"
                ) from error
            if found is not None:
                return found
            if refusal := connection.refusal():
                self._drop()
                raise self._unusable(refusal) from refusal
            if time.monotonic() > deadline or not patience.left():
                break
        answered = connection.refresh(_LOOK_S * 5)
        self._drop()
        if not answered:
            raise SendFailed(f"Kafka does not answer when asked for topic {topic!r}", provider="kafka")
        automatic = "did not create it" if self._options.create_topics else "was not to create it (create_topics)"
        # Positions have no messages that others would wait behind.
        lane = "" if topic == self._options.position_topic else ", or give it a lane of its own: the others wait for it"
        raise ProviderUnusable(
            f"topic {topic!r} does not exist, and the cluster {automatic}; create it with"
            f" kafka-topics.sh --create --topic {topic}{lane}",
            provider="kafka",
        )

    def _settle(
        self, batch: Batch, indices: Sequence[int], partitions: Sequence[int], rejected: dict[int, str],
        patience: Deadline,
    ) -> Outcome:  # fmt: skip
        """Deliver what can be delivered of ``indices``, and add to ``rejected`` what the broker refuses.

        kafka-python fails everything it holds with the refusal of one message. Where the broker did not say which
        message it was, those that it may have been are sent again in halves, in order, until it stands alone.
        """
        waiting = [indices]
        while waiting:
            part = waiting.pop()
            answers = self._deliver(batch, part, partitions, patience)
            if not answers.errors and not answers.refused:
                continue
            self._drop()
            rejected.update(answers.refused)
            domains = list(zip(batch.topics, partitions, strict=True))
            outcome = judge([i for i in part if i not in answers.refused], domains, answers.errors)
            left = outcome.undelivered
            if not (answers.refused or outcome.refused) or (left and not patience.left()):
                # Partitions that would still have worked wait too: the next send() takes all of them up again.
                outcome.undelivered = sorted([*left, *(i for later in waiting for i in later)])
                return outcome
            if answers.refused and not answers.suspects:
                again = [left]
            elif len(part) == 1:
                rejected[part[0]] = refusal(outcome.error, batch.topics[part[0]])
                continue
            else:
                suspects = sorted(answers.suspects) or left
                half = (len(suspects) + 1) // 2
                rest = set(left).difference(suspects)
                again = [suspects[:half], suspects[half:], [i for i in left if i in rest]]
            waiting += [later for later in reversed(again) if later]
        return Outcome()

    def _deliver(self, batch: Batch, indices: Sequence[int], partitions: Sequence[int], patience: Deadline) -> Answers:
        """One attempt."""
        answers = Answers()
        try:
            connection = self._connect(patience)
        except (SendFailed, ProviderUnusable) as error:
            # Earlier parts of the batch may have been delivered: they must not be counted out.
            answers.errors.update(dict.fromkeys(indices, kafka_errors.BrokerNotAvailableError(str(error))))
            return answers

        def limit(topic: str) -> int:
            # A producer that was made anew has not heard of the topic, and asks of its own accord for those it knows.
            connection.partitions(topic)
            known = connection.largest_batch(topic, patience.at_most(self._options.connect_timeout).left)
            return min(self._options.record_batch, known or self._learned.get(topic, self._options.record_batch))

        try:
            receipts = self._delivery.deliver(connection.producer, batch, indices, partitions, limit)
        except Exception as error:  # noqa: BLE001 - whatever it was, the producer holds messages that would still go out
            self._drop()
            answers.errors.update(dict.fromkeys(indices, error))
            return answers
        for receipt in receipts:
            if _wait(receipt, connection, patience):
                receipt.tell(answers)
            elif (refusal := connection.refusal()) is not None:
                answers.errors.update(dict.fromkeys(receipt.indices, broken_off(refusal, sent=receipt.sent())))
            else:
                answers.errors.update(dict.fromkeys(receipt.indices, NotAcknowledged(patience.why())))
        for topic, size in answers.too_large.items():
            self._learned[topic] = max(size // 2, _SMALLEST_LEARNED)
        return answers


def _wait(receipt: Receipt, connection: Connection, patience: Deadline) -> bool:
    """Whether the answer came before there was no use or no time left to wait for it."""
    timeout = 0.0
    while not receipt.wait(timeout):
        timeout = min(_LOOK_S, patience.left())
        if not timeout or connection.refusal() is not None:
            return False
    return True


def _longest(column: Sequence[bytes | None]) -> int:
    return max(map(len, filter(None, column)), default=0)
