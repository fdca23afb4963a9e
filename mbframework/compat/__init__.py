"""The way over for programs that use kafka-python: change the import, name a directory, keep the rest.

::

    from mbframework.compat import KafkaProducer

    producer = KafkaProducer(bootstrap_servers="k1:9092", buffer_directory="outbox")
    producer.send("orders", b"value", key=b"42").add_errback(log.error)

It needs kafka-python only where the provider is ``kafka``. What differs is in docs/compat.md.
"""

from mbframework.compat.errors import (
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageDead,
    MessageExpired,
    MessageLost,
    MessagePruned,
    MessagePurged,
    MessageReturned,
    MessageSizeTooLargeError,
    NotDelivered,
    OutcomeUnknown,
    SendRefused,
    StillBuffered,
    UnsupportedOperation,
)
from mbframework.compat.future import FutureRecordMetadata, RecordMetadata, TopicPartition
from mbframework.compat.producer import KafkaProducer

__all__ = [
    "FutureRecordMetadata",
    "IllegalStateError",
    "KafkaError",
    "KafkaProducer",
    "KafkaTimeoutError",
    "MessageDead",
    "MessageExpired",
    "MessageLost",
    "MessagePruned",
    "MessagePurged",
    "MessageReturned",
    "MessageSizeTooLargeError",
    "NotDelivered",
    "OutcomeUnknown",
    "RecordMetadata",
    "SendRefused",
    "StillBuffered",
    "TopicPartition",
    "UnsupportedOperation",
]
