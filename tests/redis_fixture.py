"""The fixture ``redis_server``: one real Redis for the whole run.

Without one its tests are skipped; the reason names the command that enables them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from mbframework.testing.redis import RedisServer


def require_redis() -> None:
    """Skip the test where no Redis can be had."""
    if reason := RedisServer.available():
        pytest.skip(f"no Redis server: {reason}")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis, shared by all tests: each uses a prefix of its own.

    A test that kills or freezes it, or changes its settings, asks for ``redis_control`` instead.
    """
    require_redis()
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_control(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The same Redis for a test that kills or freezes it; it runs again afterwards, however the test ended."""
    yield redis_server
    redis_server.ensure_running()


@pytest.fixture
def redis_prefix() -> str:
    """A prefix that no other test uses."""
    return f"{uuid.uuid4().hex}:"
