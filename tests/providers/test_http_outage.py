"""The provider ``http`` in a real buffer, with an endpoint that is killed and frozen."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from mbframework_http.envelope import Item

from mbframework import MessageBuffer
from mbframework.testing.http import HttpServer, Manner
from tests.providers import exactly_once
from tests.providers.batches import ROOT
from tests.providers.http_reading import items_of, numbers

#: Sends a directory's backlog until it is killed.
_DRAIN = """
import sys
from mbframework import MessageBuffer

with MessageBuffer(sys.argv[1], sys.argv[2], batch_messages=100) as buffer:
    buffer.flush(60)
"""


def test_outages_among_50_000_messages(tmp_path: Path) -> None:
    """Nothing lost, in order; only requests whose answer did not come are there again, as a whole, one for each outage
    at most."""
    with HttpServer() as server:
        url = f"{server.url}?mb.body=ndjson&mb.timeout=500ms&mb.request_messages=1000"
        exactly_once.outages_among_50_000(tmp_path / "b", url, server)
        found = numbers(server)
        stored = [[int(item.value or b"") for item in batch] for batch in _requests(server)]
    assert sorted(set(found)) == list(range(50_000))
    again = [later for earlier, later in pairwise(stored) if later == earlier]
    assert len(again) <= 3
    once = [request for earlier, request in pairwise([[], *stored]) if request != earlier]
    assert [number for request in once for number in request] == list(range(50_000))


def test_outages_and_an_endpoint_that_drops_repeats(tmp_path: Path) -> None:
    """Then each is there once."""
    with HttpServer(drop_repeats=True) as server:
        url = f"{server.url}?mb.body=array&mb.timeout=500ms"
        exactly_once.outages_among_50_000(tmp_path / "b", url, server)
        assert numbers(server) == list(range(50_000))


def test_a_request_for_each_message_is_there_once_also_after_kills_of_the_writer(tmp_path: Path) -> None:
    """The key of a message is the same in every process."""
    with MessageBuffer(tmp_path / "b", None, mode="always") as buffer:
        buffer.write_many("orders", [b"%d" % n for n in range(600)])
    with HttpServer(drop_repeats=True, sync=False) as server:
        for _ in range(2):
            with subprocess.Popen([sys.executable, "-c", _DRAIN, str(tmp_path / "b"), server.url], cwd=ROOT) as sender:
                before = len(server.stored())
                while len(server.stored()) < before + 120:
                    assert sender.poll() is None, "it ended by itself"
                    time.sleep(0.01)  # another process's file cannot be awaited
                sender.kill()
        with MessageBuffer(tmp_path / "b", server.url) as buffer:
            buffer.flush(60)
        stored = [request.header("Idempotency-Key") for request in server.stored()]
        assert numbers(server) == list(range(600))
        assert len(set(stored)) == len(stored)


def test_a_lane_that_is_refused_keeps_all_and_goes_on(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.behave(Manner(authorization="Bearer right"))
    token = tmp_path / "token"
    token.write_text("wrong")
    url = f"{http_server.url}?mb.token_file={token}"
    with MessageBuffer(tmp_path / "b", url, retry_wait=0.05, retry_wait_max=0.1) as buffer:
        buffer.write_many("orders", [b"%d" % n for n in range(300)])
        with pytest.raises(TimeoutError):
            buffer.flush(0.5)
        status = buffer.status()
        assert (status.state, status.dead, status.delivered) == ("blocked", 0, 0)
        token.write_text("right")
        buffer.flush(60)
    assert numbers(http_server) == list(range(300))


def _requests(server: HttpServer) -> list[list[Item]]:
    return [items_of(request) for request in server.stored()]
