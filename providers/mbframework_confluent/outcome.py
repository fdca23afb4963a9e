"""What became of a batch: a pure judgement of librdkafka's delivery reports.

Ordering domain: a partition of a topic. Once a message of a domain has failed, every later one of it counts as
undelivered, whatever is reported of it: what is not delivered is a suffix of its domain.
"""

# ruff: noqa: SLF001 - so librdkafka's own errors are named
from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError


class Answer(Exception):
    """Why a message was not delivered. ``weight``: of several, the heaviest says why a batch failed."""

    weight = 0


class NotAcknowledged(Answer):
    """It may have arrived."""


class NotWritten(Answer):
    """It certainly did not arrive, for no fault of its own."""


class NotStored(NotWritten):
    """The position did not get into its transaction, and with it nothing will arrive."""


class Refused(Answer):
    """Kafka will never take it, or one that shared its record batch, as it is."""

    weight = 1


class TooLarge(Refused):
    """For its size, or that of its record batch."""


class OwnTopic(Refused):
    """For its topic, which is Kafka's own; so is whatever shared its record batch."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} is Kafka's own, and nobody else may write to it")


class Blocked(Answer):
    """Only a person can change that; it blocks the lane, and never makes a dead letter."""

    weight = 2

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Fenced(Answer):
    """Somebody else has our transactional id."""

    weight = 2


_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
_REFUSED = frozenset({KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP})
_BLOCKED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.POLICY_VIOLATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
#: Answers of a broker after which a message may be there all the same.
_DOUBTFUL = frozenset(
    {
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN,
        KafkaError.UNKNOWN_PRODUCER_ID,
    }
)
#: Errors of librdkafka itself after which a message is certainly not there.
_LOCAL_NO = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError._QUEUE_FULL,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
    }
)


def answer_to(error: KafkaError, topic: str = "") -> Answer:
    """What the error of a delivery report, of a connection or of ``produce()`` means."""
    code, text = error.code(), error.str()
    if topic:
        text = f"topic {topic!r}: {text}"
    if code in _TOO_LARGE:
        return TooLarge(text)
    if code == KafkaError.TOPIC_EXCEPTION:
        return OwnTopic(topic)
    if code in _REFUSED:
        return Refused(text)
    if code in _FENCED:
        return Fenced(text)
    if code in _BLOCKED:
        return Blocked(text, code)
    # Below zero: librdkafka speaks for itself, above: a broker said so.
    certain = code in _LOCAL_NO if code < 0 else code not in _DOUBTFUL
    return NotWritten(text) if certain else NotAcknowledged(text)


@dataclass(slots=True)
class Outcome:
    """What is left of the messages: ``undelivered`` indices, ascending, and the weightiest ``error``, which is why.

    ``uncertain``: some of the undelivered may have arrived.
    """

    undelivered: list[int] = field(default_factory=list)
    error: Answer | None = None
    uncertain: bool = False


def judge(indices: Iterable[int], domains: Sequence[Hashable], errors: Mapping[int, Answer]) -> Outcome:
    """Judge the messages at ``indices``, ascending; ``errors`` has an entry for each that was not acknowledged."""
    outcome = Outcome()
    failed: set[Hashable] = set()
    for index in indices:
        error = errors.get(index)
        if error is None and domains[index] not in failed:
            continue
        failed.add(domains[index])
        outcome.undelivered.append(index)
        # None: it arrived after one that did not; it will arrive again.
        outcome.uncertain |= error is None or isinstance(error, NotAcknowledged)
        if error is not None and (outcome.error is None or error.weight > outcome.error.weight):
            outcome.error = error
    return outcome
