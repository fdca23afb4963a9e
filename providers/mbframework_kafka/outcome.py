"""What became of a batch: a pure judgement of the producer's answers.

Ordering domain: a partition of a topic. Once a message of a domain has failed, every later one of it counts as
undelivered, whatever the producer says of it: what is not delivered is a suffix of its domain.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kafka import errors as kafka_errors

#: Answers about one message, which will never be taken as it is. After one of them the producer fails whatever
#: else it holds with the same error, so that it is believed only of a message that stood alone.
REFUSALS = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidRecordError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.InvalidTopicError,
)

#: Those of them that are about the size of a record batch.
TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)

#: Those of them that are about its topic, and so about each of its messages.
_NO_TOPIC = (kafka_errors.InvalidTopicError,)

#: Answers that only a person can change; they block the lane, and never make a dead letter.
BLOCKS = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.UnsupportedForMessageFormatError,
    kafka_errors.UnsupportedCompressionTypeError,
    kafka_errors.InvalidRequiredAcksError,
    kafka_errors.PolicyViolationError,
    kafka_errors.KafkaConfigurationError,
)


class NotAcknowledged(Exception):
    """Stands for the missing answer of a message that we stopped waiting for."""


class NotWritten(Exception):
    """Stands for the answer of a message that certainly did not arrive, for no fault of its own."""


@dataclass(slots=True)
class Answers:
    """What an attempt to deliver came to, by index of the message.

    ``errors``: those that were not acknowledged and are not ``refused``: those of which the broker said that it will
    never take them, and why. ``suspects``: of ``errors``, the messages of a record batch that was refused for one or
    more of them, in order. ``too_large``: by topic, the bytes of a record batch of several that was refused for them.
    """

    errors: dict[int, BaseException] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    suspects: list[int] = field(default_factory=list)
    too_large: dict[str, int] = field(default_factory=dict)

    def add(self, said: Mapping[int, BaseException], topic: str) -> None:
        """The broker's answer to a record batch for a topic, as an error for each of its messages, in order.

        Kafka refuses a batch as a whole. Where it names the records at fault, the others have another error.
        """
        refused = {index: error for index, error in said.items() if isinstance(error, REFUSALS)}
        if not refused:
            self.errors.update(said)
        elif len(refused) == len(said) > 1 and not all(isinstance(error, _NO_TOPIC) for error in refused.values()):
            self.errors.update(said)
            self.suspects += said
        else:
            self.refused.update({index: refusal(error, topic) for index, error in refused.items()})
            innocent = NotWritten("refused by Kafka together with another message")
            self.errors.update({index: innocent for index in said if index not in refused})


def refusal(error: BaseException | None, topic: str) -> str:
    """Why a message is rejected that Kafka will never take, for people."""
    return own_topic(topic) if isinstance(error, _NO_TOPIC) else f"refused by Kafka: {error}"


def own_topic(topic: str) -> str:
    """Why a message is rejected that is for one of Kafka's own topics."""
    return f"refused by Kafka: topic {topic!r} is Kafka's own, and nobody else may write to it"


def broken_off(error: BaseException, *, sent: bool) -> BaseException:
    """The error of messages that the producer gave up because of ``error``, which was not their own; ``sent``: after
    they had gone out."""
    if sent:
        return NotAcknowledged(f"given up before the broker acknowledged them: {error}")
    return error if isinstance(error, BLOCKS) else NotWritten(f"given up before they were sent: {error}")


@dataclass(slots=True)
class Outcome:
    """What is left of the messages: ``undelivered`` indices, ascending, and the first ``error``, which is why.

    ``uncertain``: some of the undelivered may have arrived. ``refused``: the broker refused one of the messages
    for itself, or one that was sent along with them.
    """

    undelivered: list[int] = field(default_factory=list)
    error: BaseException | None = None
    uncertain: bool = False

    @property
    def refused(self) -> bool:
        """Whether a message, not the broker, is why."""
        return isinstance(self.error, REFUSALS)


def judge(indices: Iterable[int], domains: Sequence[Hashable], errors: Mapping[int, BaseException]) -> Outcome:
    """Judge the messages at ``indices``, ascending; ``errors`` has an entry for each that was not acknowledged.

    A refusal, and an answer that only a person can change, come before other errors: they say why.
    """
    outcome = Outcome()
    failed: set[Hashable] = set()
    for index in indices:
        error = errors.get(index)
        if error is None and domains[index] not in failed:
            continue
        failed.add(domains[index])
        outcome.undelivered.append(index)
        # None: it arrived after one that did not; it will arrive again.
        outcome.uncertain |= error is None or _may_have_arrived(error)
        if error is not None and (outcome.error is None or _weight(error) > _weight(outcome.error)):
            outcome.error = error
    return outcome


def _weight(error: BaseException) -> int:
    return 2 if isinstance(error, BLOCKS) else 1 if isinstance(error, REFUSALS) else 0


def _may_have_arrived(error: BaseException) -> bool:
    # What the library gave up in flight; an answer of the broker is a certain no.
    if isinstance(error, NotWritten):
        return False
    return not isinstance(error, kafka_errors.BrokerResponseError) or isinstance(error, kafka_errors.RetriableError)
