"""Stands between clients and a real broker: answers produce requests with errors that a lone broker never gives, and
tells of requests on their way, which wait meanwhile.

The broker must advertise :attr:`ProduceProxy.port`. One thread a connection: Kafka answers in order.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

from kafka.protocol.producer import ProduceRequest, ProduceResponse

NOT_ENOUGH_REPLICAS = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20

_LENGTH = struct.Struct(">i")
_HEADER = struct.Struct(">hhi")
_PRODUCE = 0


INIT_PRODUCER_ID = 22
END_TXN = 26


class Moment(Enum):
    """How far a request has come: the proxy has it, the broker has it, the proxy has the answer."""

    ASKED = auto()
    SENT = auto()
    ANSWERED = auto()


def _pass(_key: int, _moment: Moment) -> None:
    """Nobody minds."""


class ProduceProxy:
    """``errors``: the codes with which the next produce requests are answered; empty: as the broker says.

    ``meet`` is called with the API key of every request at each of its moments, on the thread of the connection, which
    goes on when it returns, and is cut where it raises a :class:`ConnectionError`.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.errors: deque[int] = deque()
        self.meet: Callable[[int, Moment], None] = _pass
        self._target = ("", 0)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def start(self, target: tuple[str, int]) -> None:
        """Take connections to the broker at ``target``; may be called again."""
        self._target = target
        if not self._threads:
            self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _spawn(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name="test-kafka-proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._spawn(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as broker:
            self._open |= {client, broker}
            try:
                while request := _read(client):
                    answer = self._carry(request, broker)
                    if not answer:
                        break
                    _write(client, answer)
            finally:
                self._open -= {client, broker}

    def _carry(self, request: bytes, broker: socket.socket) -> bytes:
        """The answer to a request; empty where the broker hangs up."""
        key, version, correlation = _HEADER.unpack_from(request)
        code = self.errors.popleft() if key == _PRODUCE and self.errors else 0
        self.meet(key, Moment.ASKED)
        if code == NOT_ENOUGH_REPLICAS:
            return _refusal(request, version, correlation, code)
        _write(broker, request)
        self.meet(key, Moment.SENT)
        answer = _read(broker)
        self.meet(key, Moment.ANSWERED)
        return _refusal(request, version, correlation, code) if code and answer else answer


def _read(connection: socket.socket) -> bytes:
    """One frame; empty at the end."""
    head = connection.recv(_LENGTH.size, socket.MSG_WAITALL)
    return connection.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL) if len(head) == _LENGTH.size else b""


def _write(connection: socket.socket, frame: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(frame)) + frame)


def _refusal(request: bytes, version: int, correlation: int, code: int) -> bytes:
    asked = ProduceRequest.decode(request, version=version, header=True)
    topic_type = ProduceResponse.TopicProduceResponse
    partition_type = topic_type.PartitionProduceResponse
    answer = ProduceResponse(
        responses=[
            topic_type(
                name=topic.name,
                partition_responses=[
                    partition_type(
                        index=each.index,
                        error_code=code,
                        base_offset=-1,
                        log_append_time_ms=-1,
                        log_start_offset=-1,
                        record_errors=[],
                        error_message=None,
                    )
                    for each in topic.partition_data
                ],
            )
            for topic in asked.topic_data
        ],
        throttle_time_ms=0,
    )
    # From version 9 on a header ends with tagged fields, of which there are none.
    header = struct.pack(">i", correlation) + (b"\0" if version >= 9 else b"")
    return header + bytes(answer.encode(version=version))
