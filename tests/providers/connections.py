"""What must hold for the connection of a provider whose server goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mbframework.errors import SendFailed
from mbframework.testing.server import Server
from tests.providers.batches import context, make_batch
from tests.providers.made import create


def mended_between_sends(
    provider: Any, go: Callable[[], object], come: Callable[[], object], words: str = "cannot be reached: .*refused"
) -> None:
    """An open provider notices without being sent anything that its server went, and goes on when it is back.

    The values 1 to 20 are sent; the provider is closed.
    """
    provider.send(make_batch(1, 10))
    go()
    deadline = time.monotonic() + 60
    with pytest.raises(SendFailed, match=words):
        # The end of the connection takes a moment to arrive; then it is tried to make another one.
        while time.monotonic() < deadline:
            try:
                provider.idle()
            except SendFailed as error:
                if "the connection has ended" not in str(error):
                    raise
            time.sleep(0.01)
    come()
    provider.idle()
    provider.send(make_batch(11, 10))
    provider.close(1)


def waits_end(url: str, server: Server, how: str, within: float) -> str:
    """A ``send()`` to a frozen server fails ``within`` seconds after the buffer is ``"stopping"`` or the provider is
    told to ``"close"``; its words. The server stays frozen."""
    lane = context()
    provider = create(url)
    provider.open(lane)
    failures: list[SendFailed] = []

    def send() -> None:
        try:
            provider.send(make_batch(1, 10))
        except SendFailed as error:
            failures.append(error)

    server.freeze()
    sender = threading.Thread(target=send)
    sender.start()
    began = time.monotonic()
    if how == "stopping":
        lane.stopping.set()
    else:
        provider.close(0)
    sender.join(60)
    assert not sender.is_alive()
    assert time.monotonic() - began < within
    (failure,) = failures
    provider.close(0)
    return str(failure)
