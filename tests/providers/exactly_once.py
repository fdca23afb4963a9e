"""What must hold for a provider that keeps the position, with a real buffer, whatever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from mbframework import MessageBuffer
from mbframework.testing.server import Server
from tests.providers.batches import ROOT

TOPIC = "orders"
#: With ``MBFRAMEWORK_TEST_KIT=long`` as many processes are killed as a test says, else half of them.
LONG = os.environ.get("MBFRAMEWORK_TEST_KIT") == "long"
_FAST = {"retry_wait": 0.05, "retry_wait_max": 0.2, "catch_up": "full"}

#: Delivers a directory's backlog, and is killed between the destination's commit and the seek's store.
_KILLED = """
import os, signal, sys
from mbframework import MessageBuffer
from mbframework.plugins.source import resolve

directory, url, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])

def make(context):
    global batches
    provider = resolve(url).create(context)
    send = provider.send
    def send_and_die(batch):
        global batches
        send(batch)
        batches -= 1
        if not batches:
            os.kill(os.getpid(), signal.SIGKILL)
    provider.send = send_and_die
    return provider

with MessageBuffer(directory, make, batch_messages=500, retry_wait=0.05, retry_wait_max=0.2, catch_up="full") as buffer:
    buffer.flush(60)
"""

#: Writes numbers from sys.argv[3] on, says up to where they are accepted, and is killed by its parent.
_WRITER = """
import sys, time
from mbframework import MessageBuffer

# Live messages may go with the process that is killed; what is on disk may not.
with MessageBuffer(sys.argv[1], sys.argv[2], mode="always", retry_wait=0.05, retry_wait_max=0.2) as buffer:
    number = int(sys.argv[3])
    while True:
        buffer.write_many("orders", [b"%08d" % n for n in range(number, number + 100)])
        number += 100
        print(number, flush=True)
        time.sleep(0.005)
"""


def outages_among_50_000(directory: Path, url: str, server: Server, topic: str = TOPIC, *, kills: int = 2) -> None:
    """One or two kill -9 of the server and a freeze, while 50,000 messages are written and sent."""
    with MessageBuffer(directory, url, mode="buffer", batch_messages=1000, **_FAST) as buffer:  # type: ignore[arg-type]
        for part in range(50):
            buffer.write_many(topic, [b"%08d" % n for n in range(part * 1000, part * 1000 + 1000)])
            if part in (10, 30)[:kills]:
                server.kill()
            elif part in (15, 35)[:kills]:
                server.restart()
            elif part == 20:
                server.freeze()
            elif part == 25:
                server.thaw()
            # Time for batches to be under way when the next outage comes.
            threading.Event().wait(0.02)
        buffer.flush(60)
        status = buffer.status()
        assert (status.delivered, status.lost, status.pruned) == (50_000, 0, 0)


def kills_between_commit_and_seek(directory: Path, url: str, kills: int) -> int:
    """A backlog that processes deliver which are killed when a batch is stored and their seek is not; its length."""
    count = 20_000
    with MessageBuffer(directory, None, mode="always") as buffer:
        for first in range(0, count, 1000):
            buffer.write_many(TOPIC, [b"%08d" % n for n in range(first, first + 1000)])
    chance = random.Random(7)
    for _ in range(kills if LONG else (kills + 1) // 2):
        command = [sys.executable, "-c", _KILLED, str(directory), url, str(chance.randint(1, 4))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
    _deliver(directory, url)
    return count


def kills_of_writers(directory: Path, url: str, kills: int, between: Callable[[], None]) -> list[int]:
    """Programs that write and send are killed at any moment; the numbers that were accepted, as far as they said so."""
    chance = random.Random(11)
    begin = 0
    accepted: list[int] = []
    for _ in range(kills if LONG else (kills + 1) // 2):
        command = [sys.executable, "-c", _WRITER, str(directory), url, str(begin)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            last = [int(writer.stdout.readline()) for _ in range(chance.randint(5, 60))][-1]
            between()
            writer.send_signal(signal.SIGKILL)
            # Of what it wrote after its last word, any part may be accepted.
            rest = [int(line) for line in writer.stdout.read().split()]
        accepted += range(begin, [last, *rest][-1])
        begin += 1_000_000
    _deliver(directory, url)
    return accepted


def _deliver(directory: Path, url: str) -> None:
    with MessageBuffer(directory, url, **_FAST) as buffer:  # type: ignore[arg-type]
        buffer.flush(60)
        assert buffer.status().lost == 0
