"""A handler of Python's ``logging`` that writes records into a buffer.

::

    logging.getLogger().addHandler(BufferHandler(buffer, topic="logs"))

Promises
--------
- Logging never waits and never raises, whatever the state of buffer, device and provider, in every mode: a record that
  is not accepted at once is dropped and counted in ``dropped``.
- It does not feed itself: records of mbframework, of clients with threads of their own (``exclude``), and of threads
  that send are left to the other handlers.
- One record is one message, formatted on the thread that logs.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mbframework.buffer import MessageBuffer
from mbframework.errors import ConfigurationError, MessageBufferError
from mbframework.intake import check_topic
from mbframework.patience import WouldWait
from mbframework.routed import RoutedBuffer

#: Clients of brokers that log on threads of their own, while they send what is logged.
CLIENTS = ("kafka", "nats", "paho", "pika")
_OWN = "mbframework"
#: What every record has; the rest came with ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class BufferHandler(logging.Handler):
    """Writes each record to ``topic`` of a buffer, as text of ``formatter`` (in UTF-8) or of the default one.

    :param buffer: a MessageBuffer or RoutedBuffer, which its owner closes; or a directory, and then the handler opens
        the buffer with ``provider`` and ``options``, and closes it with itself: for ``logging.config.dictConfig``.
    :param key: the key of every message.
    :param json_lines: format with :class:`JsonFormatter`.
    :param exclude: loggers that are left out, with those below them, beside mbframework's own.

    :raises ConfigurationError: an argument is wrong. :raises MessageBufferError: the buffer cannot be opened.
    """

    def __init__(
        self,
        buffer: MessageBuffer | RoutedBuffer | str | os.PathLike[str],
        topic: str = "logs",
        *,
        key: str | None = None,
        json_lines: bool = False,
        exclude: Iterable[str] = CLIENTS,
        level: int | str = logging.NOTSET,
        provider: Any = None,
        **options: Any,
    ) -> None:
        check_topic(topic)
        self._topic, self._key = topic, key
        self._excluded = tuple(f"{name}." for name in (_OWN, *([exclude] if isinstance(exclude, str) else exclude)))
        #: Records that were not accepted, and why the last of them was not.
        self.dropped, self.last_error = 0, ""
        self._owns = isinstance(buffer, str | os.PathLike)
        if isinstance(buffer, str | os.PathLike):
            buffer = MessageBuffer(buffer, provider, **options)
        elif provider is not None or options:
            name = min(options, default="provider")
            raise ConfigurationError(f"{name}: give it to the buffer, which is made already", option=name)
        self._buffer = buffer
        super().__init__(level)
        self.addFilter(self._takes)
        if json_lines:
            self.setFormatter(JsonFormatter())

    @property
    def buffer(self) -> MessageBuffer | RoutedBuffer:
        """The buffer underneath."""
        return self._buffer

    def _takes(self, record: logging.LogRecord) -> bool:
        """Whether writing the record would not cause another one."""
        sending = threading.current_thread().name.startswith("mbframework-sender")
        return not sending and not f"{record.name}.".startswith(self._excluded)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Text that is no UTF-8 (surrogates of undecodable bytes) is written escaped rather than dropped.
            text = self.format(record).encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - the program's own arguments and formatter; as every handler does
            self.handleError(record)
            return
        try:
            self._write(text)
        except (MessageBufferError, OSError, WouldWait) as error:
            self.dropped += 1
            self.last_error = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - a defect of ours, too, must not reach a program that only logs
            self.dropped += 1
            self.last_error = f"{type(error).__name__}: {error}"

    def _write(self, text: bytes) -> None:
        buffer = self._buffer
        lane = buffer.lane_for(self._topic) if isinstance(buffer, RoutedBuffer) else buffer
        bundle = lane.check_many(self._topic, [text], [self._key])
        lane.running_lane().write_many(bundle, bundle.size, wait=False)

    def flush(self) -> None:
        """Nothing is held here: a record is in the buffer when it is logged."""

    def close(self) -> None:
        """Close the buffer, where the handler has opened it; what could not be delivered is kept there."""
        super().close()
        if self._owns:
            try:
                self._buffer.close()
            except MessageBufferError as error:
                self.last_error = str(error)


class JsonFormatter(logging.Formatter):
    r"""A record as one line of JSON, without its newline.

    ``time`` (RFC 3339, UTC, milliseconds), ``level``, ``logger``, ``message``, ``process``, ``thread``; ``exception``
    and ``stack`` where there are; ``extra`` with what was passed as such, its ``repr()`` where JSON cannot hold it.

    :param static: fields that every line has, such as ``{"service": "billing"}``.
    """

    def __init__(self, static: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._static = dict(static or {})

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            **self._static,
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "thread": record.threadName,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if extra:
            line["extra"] = extra
        try:
            return json.dumps(line, default=repr)
        except (TypeError, ValueError, RecursionError):
            # Keys that are no text, or what contains itself.
            return json.dumps(line | {"extra": repr(extra)}, default=repr)
