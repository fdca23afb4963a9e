"""The fixture ``http_server``: one real HTTP endpoint for the whole run, a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbframework.testing.http import HttpServer


@pytest.fixture(scope="session")
def _http_endpoint() -> Iterator[HttpServer]:
    with HttpServer(sync=False) as server:
        yield server


@pytest.fixture
def http_server(_http_endpoint: HttpServer) -> Iterator[HttpServer]:
    """A running endpoint that has stored nothing yet, and may be killed, frozen and told how to behave.

    It outlives what a kill takes; nothing here needs it to outlive a power loss.
    """
    _http_endpoint.ensure_running()
    _http_endpoint.forget()
    yield _http_endpoint
    _http_endpoint.ensure_running()
