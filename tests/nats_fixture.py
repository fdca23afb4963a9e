"""The fixture ``nats_server``: one real NATS with JetStream for the whole run.

Without one its tests are skipped; the reason names the command that enables them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from mbframework.testing.nats import NatsServer


def require_nats() -> None:
    """Skip the test where no NATS can be had."""
    if reason := NatsServer.available():
        pytest.skip(f"no NATS server: {reason}")


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A running NATS, shared by all tests: each uses a stream of its own.

    A test that kills or freezes it asks for ``nats_control`` instead.
    """
    require_nats()
    with NatsServer() as server:
        yield server


@pytest.fixture
def nats_control(nats_server: NatsServer) -> Iterator[NatsServer]:
    """The same NATS for a test that kills or freezes it; it runs again afterwards, however the test ended."""
    yield nats_server
    nats_server.ensure_running()


@pytest.fixture
def nats_stream() -> str:
    """A name for a stream that no other test uses, and for the prefix of its subjects."""
    return uuid.uuid4().hex
