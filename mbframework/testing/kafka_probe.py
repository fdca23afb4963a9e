"""Ports for a broker, and whether one answers there: by hand, without a client library."""

from __future__ import annotations

import random
import socket
import struct


def free_ports(count: int) -> set[int]:
    """Free ports below the ephemeral range, so that no outgoing connection takes one while the broker is down."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.add(port)
    return ports


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("connection closed")
        data += piece
    return data


def answers(address: tuple[str, int], timeout_s: float) -> bool:
    """Whether a broker at ``address`` answers a metadata request and names a broker that takes messages."""
    request = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", 0)  # Metadata v1 of no topic, null client id
    try:
        with socket.create_connection(address, timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            answer = _receive(connection, size)
    except OSError:
        return False
    correlation, brokers = struct.unpack_from(">ii", answer)
    return bool(correlation == 7 and brokers > 0)
