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
)

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
    return not isinstance(error, kafka_errors.BrokerResponseError) or isinstance(error, kafka_errors.RetriableError)
