"""Who answers at the brokers' addresses: a short look by hand, to say in words what kafka-python only times out on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable

Address = tuple[str, int]


class CertificateRefused(Exception):
    """The broker's certificate was not accepted; the text says why."""


def addresses(hosts: Iterable[str]) -> list[Address]:
    """Host and port of each ``host[:port]``; the port of Kafka where none is given."""
    found = []
    for host in hosts:
        name, colon, port = host.rpartition(":")
        if colon and port.isdigit() and not (name.count(":") and not name.endswith("]")):
            found.append((name.strip("[]"), int(port)))
        else:
            found.append((host.strip("[]"), 9092))
    return found


def obstacle(places: Iterable[Address], timeout_s: float, context: ssl.SSLContext | None = None) -> str | None:
    """None where one of the addresses takes a connection (with TLS: completes a handshake), else why each does not.

    Takes at most ``timeout_s`` seconds for each address, name lookups aside.

    :raises CertificateRefused: with TLS, and no address was better.
    """
    reasons = []
    refused = None
    for host, port in places:
        try:
            with socket.create_connection((host, port), timeout_s) as connection:
                if context is not None:
                    context.wrap_socket(connection, server_hostname=host).close()
            return None
        except ssl.SSLCertVerificationError as error:
            refused = CertificateRefused(f"{host}:{port}: {error.verify_message}")
        except OSError as error:
            reasons.append(f"{host}:{port}: {error.strerror or error or type(error).__name__}")
    if refused is not None:
        raise refused
    return "; ".join(reasons)
