"""What these tests share: options that make an outage short, a look at a directory, and a wait for what has no event.

Each test is named after its number in the list of docs/features.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker

#: Seconds after which something that should have happened will not.
WAIT_S = 60.0

#: Retries come at once, and leaving gives up soon: no outage here ends by itself.
FAST: dict[str, Any] = {
    "retry_wait": 0.01,
    "retry_wait_max": 0.05,
    "live_after": 0.05,
    "close_timeout": 0.2,
    "catch_up": "full",
}


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that nothing announces, such as the size of a directory."""
    deadline = time.monotonic() + WAIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {WAIT_S:g} s"
        pause.wait(0.01)


def numbers(broker: FakeBroker) -> list[int]:
    """What arrived; the tests write numbers, followed by a blank and padding."""
    return [int((message.value or b"").split(b" ")[0]) for message in broker.messages]


def padded(number: int, size: int) -> bytes:
    """A message that says its number, of ``size`` bytes."""
    return f"{number} ".encode().ljust(size, b".")


def files_below(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The content of every file, by path; one that is renamed meanwhile is left out."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError), open(full, "rb") as file:
                found[full] = file.read()
    return found


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """A broker of its own; whatever hangs in it goes on at the end."""
    made = FakeBroker("right")
    yield made
    made.release()
