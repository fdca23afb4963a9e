"""A program with processes of its own: ``python -m served_pool METHOD HOW``. Each puts down what was accepted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import BaseContext

from mbframework import MessageBuffer, install_sigterm

#: Opened once a process: forked ones find that of their parent, others open their own.
_buffers: dict[str, MessageBuffer] = {}


def outbox() -> MessageBuffer:
    if not _buffers:
        _buffers["all"] = MessageBuffer(os.environ["OUTBOX"], os.environ["DESTINATION"], mode=os.environ["MODE"])
    return _buffers["all"]


def work(first: int, count: int) -> None:
    buffer = outbox()
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        for number in range(first, first + count):
            buffer.write("served", str(number))
            os.write(ledger, f"{number}\n".encode())
    finally:
        os.close(ledger)


def trickle(first: int, count: int) -> None:
    """Live, and so slowly that it stays so: something waits in memory at any moment, and nothing is on disk."""
    until(lambda: outbox().status().state == "live")
    for number in range(first, first + count):
        work(number, 1)
        time.sleep(0.001)


def lines() -> int:
    try:
        with open(os.environ["LEDGER"], "rb") as ledger:
            return ledger.read().count(b"\n")
    except FileNotFoundError:
        return 0


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.002)


def killed(context: BaseContext) -> None:
    """Three work, one is killed -9 in the middle, and another one comes in its place."""
    children = [context.Process(target=work, args=(number * 100_000, 100_000)) for number in range(1, 3)]
    victim = context.Process(target=work, args=(0, 100_000))
    for child in (victim, *children):
        child.start()
    until(lambda: lines() > 3000)
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    for child in children:
        os.kill(child.pid or 0, signal.SIGTERM)
        child.join()
    # As many again: they adopt what the others left.
    again = [context.Process(target=work, args=(number * 100_000, 1000)) for number in range(3, 6)]
    for child in again:
        child.start()
    for child in again:
        child.join()
    print([child.exitcode for child in again], flush=True)


def closed(context: BaseContext) -> None:
    """A pool that is closed and joined: its processes leave by os._exit."""
    with context.Pool(3) as pool:
        pool.starmap(trickle, [(number * 100, 100) for number in range(6)])
        pool.close()
        pool.join()
    print("closed", flush=True)


def terminated(context: BaseContext) -> None:
    """A pool that is left in the middle of its work: SIGTERM for each of its processes."""
    with context.Pool(3, initializer=install_sigterm) as pool:
        pool.starmap_async(trickle, [(number * 100_000, 100_000) for number in range(3)])
        until(lambda: lines() > 500)
    print("terminated", flush=True)


if __name__ == "__main__":
    method, how = sys.argv[1:]
    if method == "fork":
        outbox()
    {"killed": killed, "closed": closed, "terminated": terminated}[how](multiprocessing.get_context(method))
