"""A broker of our own is not taken for one that somebody else runs."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from mbframework.testing.kafka import ENVIRONMENT, BrokerError, KafkaBroker


def test_the_port_of_another_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            # Correlation 7, one broker: as far as a probe reads.
            connection.sendall(struct.pack(">iii", 8, 7, 1))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = threading.Thread(target=answer, args=(listener,))
        other.start()
        broker = KafkaBroker(port=listener.getsockname()[1])
        try:
            with pytest.raises(BrokerError, match="another broker answers at 127"):
                broker.start()
        finally:
            other.join(60)
            broker.stop()
