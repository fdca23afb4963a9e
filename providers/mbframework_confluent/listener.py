"""What librdkafka says beside its delivery reports: errors of connections, and its log.

It speaks where it is polled, on the thread that does so; most often the sender's.
"""

# ruff: noqa: SLF001 - so librdkafka's own errors are named
from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping

from confluent_kafka import KafkaError

from mbframework_confluent.outcome import Answer, Blocked, answer_to

#: Seconds during which further lines of a kind are only for debugging: in an outage there are some twenty a second.
_QUIET_S = 60.0
#: Kinds of lines that are only for debugging: how it is configured is ours to know, and that a producer is dead or
#: its transaction failed, is told by the error of the batch that it was for.
_UNASKED = ("CONFWARN", "FATAL", "TXNERR")
#: In the text of a failed TLS handshake.
_CERTIFICATE = ("certificate", "hostname mismatch", "ip address mismatch")
#: In what OpenSSL says; librdkafka passes it on as an error of TLS, or of the connection, as it happens to notice.
_OPENSSL = "SSL routines"
#: How librdkafka ends a handshake that nobody answered, which it calls an error of authentication all the same.
_NO_ANSWER = ("failed: Local: Broker transport failure", "failed: Local: Timed out")


class Listener:
    """Of one producer.

    ``refusal``: why a broker does not let us in. ``dead``: why the producer is good for nothing any more. ``trouble``:
    what was last said of a connection; "" for nothing. ``down``: no broker could be reached when this was last said.
    ``broken``: the transaction cannot be committed any more.

    :param heard: when a line of each kind was last passed on; shared by producers that follow each other.
    """

    def __init__(self, logger: logging.Logger, heard: MutableMapping[str, float]) -> None:
        self.refusal: Answer | None = None
        self.dead: Answer | None = None
        self.trouble = ""
        self.down = False
        self.broken = False
        self._logger = logger
        self._heard = heard

    def error(self, error: KafkaError) -> None:
        """librdkafka's ``error_cb``. A fatal error comes as an exception of the call that polls instead."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down = True
            return
        self.trouble = text = error.str()
        answer = answer_to(error)
        if error.code() == KafkaError._AUTHENTICATION and any(words in text for words in _NO_ANSWER):
            return
        if isinstance(answer, Blocked):
            self.refusal = answer
        elif (error.code() == KafkaError._SSL or _OPENSSL in text) and any(
            word in text.lower() for word in _CERTIFICATE
        ):
            self.refusal = Blocked(text, KafkaError._SSL)

    def log(self, level: int, template: str, kind: str, *rest: object) -> None:
        """librdkafka's ``logger``: the first line of a kind in a while at its level, but no error, since the lane tells
        errors; others for debugging."""
        now = time.monotonic()
        if kind == "TXNERR":
            self.broken = True
        if kind in _UNASKED or now < self._heard.get(kind, -_QUIET_S) + _QUIET_S:
            level = logging.DEBUG
        else:
            self._heard[kind] = now
        self._logger.log(min(level, logging.WARNING), f"librdkafka: {template}", kind, *rest)  # noqa: G004 - its own
