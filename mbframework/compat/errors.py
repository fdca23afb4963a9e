"""What :class:`~mbframework.compat.KafkaProducer` raises, and what its futures fail with.

::

    KafkaError                      of kafka-python's name; also a MessageBufferError
    ├── KafkaTimeoutError           get(), flush() or a full buffer took longer than allowed; also a TimeoutError
    ├── IllegalStateError           the producer is closed
    ├── MessageSizeTooLargeError    this one message is refused; nothing was written
    ├── SendRefused                 not accepted now; sending it again later is right
    ├── UnsupportedOperation        it has no meaning here; the text says what to do instead
    ├── NotDelivered                the message will not be delivered; ``topic``, ``sequence``, ``reason``
    │   ├── MessagePruned           removed to make room
    │   ├── MessageExpired          older than expire_after when its turn came
    │   ├── MessageDead             the broker will never take it; it is among the dead letters
    │   ├── MessagePurged           removed by purge()
    │   ├── MessageLost             what was on disk cannot be read; it may have arrived
    │   └── MessageReturned         the buffer could not keep it; it is on the Undelivered that close() raised
    └── OutcomeUnknown              it was accepted, and nobody can say here what becomes of it: do not send it again
        └── StillBuffered           the buffer was closed first; it is delivered by the next opening or by mb drain
"""

from __future__ import annotations

from mbframework.errors import MessageBufferError


class KafkaError(MessageBufferError):
    """The root of these errors, under the name that ``except`` clauses of such programs use."""

    #: As in kafka-python: whether calling again may help.
    retriable = False


class KafkaTimeoutError(KafkaError, TimeoutError):
    """Something took longer than allowed; the message, if there is one, stays accepted."""

    retriable = True


class IllegalStateError(KafkaError):
    """The producer is closed; make a new one."""


class MessageSizeTooLargeError(KafkaError):
    """The message is larger than the buffer, or the provider, takes."""


class SendRefused(KafkaError):
    """The message was not accepted; ``__cause__`` says why. Sending it again later is right."""

    retriable = True


class UnsupportedOperation(KafkaError):
    """What kafka-python offers and a buffer cannot; the text says what to do instead."""


class _OfMessage(KafkaError):
    """``sequence`` is the message's place in the buffer (0: it is not known), ``reason`` why."""

    def __init__(self, text: str, *, topic: str, sequence: int, reason: str = "") -> None:
        super().__init__(text)
        self.topic = topic
        self.sequence = sequence
        self.reason = reason


class NotDelivered(_OfMessage):
    """An accepted message has left the buffer and was not delivered."""


class MessagePruned(NotDelivered):
    """Removed, as one of the oldest, because the buffer was full (``on_full="prune"``)."""


class MessageExpired(NotDelivered):
    """Older than ``expire_after`` before it could be sent."""


class MessageDead(NotDelivered):
    """The provider rejected it for good, for ``reason``; ``mb dead`` lists, replays and drops such messages."""


class MessagePurged(NotDelivered):
    """Removed by ``purge()``."""


class MessageLost(NotDelivered):
    """What was on disk cannot be read any more."""


class MessageReturned(NotDelivered):
    """The buffer was closed and could not keep it: ``messages`` of the error that ``close()`` raised has it."""


class OutcomeUnknown(_OfMessage):
    """The message is accepted, and what becomes of it is not told. Sending it again would repeat it."""


class StillBuffered(OutcomeUnknown):
    """The buffer was closed before it was delivered."""


#: By account: the error, and what it says.
_BY_ACCOUNT: dict[str, tuple[type[_OfMessage], str]] = {
    "pruned": (MessagePruned, "was removed to make room; raise total_size, or on_full='block' or 'reject' keeps it"),
    "expired": (MessageExpired, "was older than expire_after when its turn came"),
    "dead": (MessageDead, "was rejected for good, and is among the dead letters (mb dead list)"),
    "purged": (MessagePurged, "was removed by purge()"),
    "lost": (MessageLost, "cannot be read from the disk any more; the log and mb status say more"),
    "returned": (MessageReturned, "could not be kept when the buffer was closed; close() has raised it as Undelivered"),
    "kept": (
        StillBuffered,
        "was not delivered when the buffer was closed; it is delivered by the next opening or by mb drain",
    ),
    "unknown": (OutcomeUnknown, "is accepted, but what becomes of it is not told"),
}


def error_of(account: str, topic: str, sequence: int, reason: str = "") -> KafkaError:
    """The error for a message that left by ``account`` (or: ``kept``, ``unknown``). Pure."""
    kind, words = _BY_ACCOUNT[account]
    name = f"message {sequence}" if sequence else "the message"
    text = f"{name} for topic {topic!r} {words}" + (f": {reason}" if reason else "")
    return kind(text, topic=topic, sequence=sequence, reason=reason)
