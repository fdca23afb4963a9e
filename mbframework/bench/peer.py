"""Other queues on disk for Python, each with the settings that might make it fast, and one way to use them all.

What a setting promises is not believed: :mod:`mbframework.bench.peers` kills a process that writes, and looks what is
left. Libraries are imported when a queue is opened.

Run as a process of its own (:mod:`mbframework.bench.worker`), it measures, or writes until it is killed.
"""

from __future__ import annotations

import importlib.util
import itertools
import mmap
import select
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from mbframework import MessageBuffer
from mbframework.bench.tally import TallyProvider, values
from mbframework.bench.worker import serve
from mbframework.message import Batch

#: Messages between two looks at the clock.
_STRIDE = 50


class Queue(NamedTuple):
    """An open queue: puts a message; takes all that are in it, in order; closes it."""

    put: Callable[[bytes], object]
    take: Callable[[], Iterator[bytes]]
    close: Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """One way to use a package; ``open`` gets the path of a folder that is there. ``module`` must be installed."""

    package: str
    how: str
    module: str
    open: Callable[[str], Queue]

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.package}: {self.how}"

    @property
    def missing(self) -> str:
        """Why it cannot be had; "" where it can."""
        if importlib.util.find_spec(self.module) is not None:
            return ""
        return f"{self.package} is not installed; run: pip install 'mbframework[bench]'"


def _until_none(take: Callable[[], Any]) -> Iterator[bytes]:
    while (item := take()) is not None:
        yield item


def _persist_queue_file(chunk: int) -> Callable[[str], Queue]:
    def start(folder: str) -> Queue:
        from persistqueue import Queue as FileQueue

        queue = FileQueue(f"{folder}/queue", chunksize=chunk, tempdir=folder)
        return Queue(queue.put, lambda: (queue.get() for _ in range(queue.qsize())), lambda: None)

    return start


def _persist_queue_sqlite(*pragmas: str, auto_commit: bool = True) -> Callable[[str], Queue]:
    def start(folder: str) -> Queue:
        from persistqueue import SQLiteQueue

        queue = SQLiteQueue(f"{folder}/queue", auto_commit=auto_commit)
        # It has no option for that; this is its only connection.
        connection: Any = queue._putter
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
        return Queue(queue.put, lambda: (queue.get() for _ in range(queue.qsize())), queue.close)

    return start


def _litequeue(*pragmas: str) -> Callable[[str], Queue]:
    def start(folder: str) -> Queue:
        from litequeue import LiteQueue

        queue: Any = LiteQueue(f"{folder}/queue.db")
        for pragma in pragmas:
            queue.conn.execute(f"PRAGMA {pragma}")
        return Queue(
            queue.put, lambda: (message.data for message in iter(queue.pop, None)), queue.close
        )  # fmt: skip

    return start


def _diskcache(kind: str, **settings: Any) -> Callable[[str], Queue]:
    def start(folder: str) -> Queue:
        import diskcache

        cache = diskcache.Cache(f"{folder}/cache", **settings)
        if kind == "Deque":
            deque = diskcache.Deque.fromcache(cache)
            return Queue(deque.append, lambda: iter(deque), cache.close)
        return Queue(cache.push, lambda: (cache[key] for key in cache.iterkeys()), cache.close)

    return start


def _queuelib_disk(folder: str) -> Queue:
    from queuelib import FifoDiskQueue

    queue = FifoDiskQueue(f"{folder}/queue")
    return Queue(queue.push, lambda: _until_none(queue.pop), queue.close)


def _queuelib_sqlite(*pragmas: str) -> Callable[[str], Queue]:
    def start(folder: str) -> Queue:
        from queuelib.queue import FifoSQLiteQueue

        queue = FifoSQLiteQueue(f"{folder}/queue.db")
        for pragma in pragmas:
            queue._db.execute(f"PRAGMA {pragma}")
        return Queue(queue.push, lambda: _until_none(queue.pop), queue.close)

    return start


def _sqlite(synchronous: str) -> Callable[[str], Queue]:
    def start(folder: str) -> Queue:
        connection = sqlite3.connect(f"{folder}/queue.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY, value BLOB)")
        insert = connection.execute

        def put(value: bytes) -> None:
            insert("INSERT INTO queue (value) VALUES (?)", (value,))

        rows = "SELECT value FROM queue ORDER BY id"
        return Queue(put, lambda: (value for (value,) in connection.execute(rows)), connection.close)

    return start


def _ours(folder: str) -> Queue:
    """A buffer whose provider is away; what is in it is taken by one that is not."""
    provider = _Keeper()
    buffer = MessageBuffer(f"{folder}/buffer", provider, mode="always", close_timeout=0)
    return Queue(lambda value: buffer.write("topic", value), lambda: _drained(buffer, provider), buffer.close)


def _drained(buffer: MessageBuffer, provider: _Keeper) -> Iterator[bytes]:
    provider.away.clear()
    buffer.flush(60)
    return iter(provider.kept)


class _Keeper(TallyProvider):
    """Keeps the values that have arrived; it is away at first."""

    def __init__(self) -> None:
        super().__init__(numbered=False)
        self.kept: list[bytes] = []
        self.away.set()

    def send(self, batch: Batch) -> None:
        super().send(batch)
        self.kept += [value or b"" for value in batch.values]


_OFF = ("journal_mode = WAL", "synchronous = OFF")
_ROOMY = {"eviction_policy": "none", "cull_limit": 0, "size_limit": 1 << 40, "sqlite_auto_vacuum": 0}

SETTINGS = (
    Setting("persist-queue", "Queue, defaults", "persistqueue", _persist_queue_file(100)),
    Setting("persist-queue", "Queue, 1,000,000 a file", "persistqueue", _persist_queue_file(1_000_000)),
    Setting("persist-queue", "SQLiteQueue, defaults", "persistqueue", _persist_queue_sqlite()),
    Setting("persist-queue", "SQLiteQueue, synchronous=OFF", "persistqueue", _persist_queue_sqlite(*_OFF)),
    Setting(
        "persist-queue", "SQLiteQueue, auto_commit=False", "persistqueue",
        _persist_queue_sqlite(*_OFF, auto_commit=False),
    ),
    Setting("litequeue", "defaults", "litequeue", _litequeue()),
    Setting("litequeue", "synchronous=OFF", "litequeue", _litequeue(*_OFF)),
    Setting("diskcache", "Deque, defaults", "diskcache", _diskcache("Deque")),
    Setting(
        "diskcache", "Deque, no eviction, synchronous=OFF", "diskcache",
        _diskcache("Deque", **_ROOMY, sqlite_synchronous=0),
    ),
    Setting(
        "diskcache", "Cache, no eviction, synchronous=OFF", "diskcache",
        _diskcache("Cache", **_ROOMY, sqlite_synchronous=0),
    ),
    Setting("queuelib", "FifoDiskQueue", "queuelib", _queuelib_disk),
    Setting("queuelib", "FifoSQLiteQueue, defaults", "queuelib", _queuelib_sqlite()),
    Setting("queuelib", "FifoSQLiteQueue, WAL, synchronous=OFF", "queuelib", _queuelib_sqlite(*_OFF)),
    Setting("SQLite", "WAL, synchronous=NORMAL", "sqlite3", _sqlite("NORMAL")),
    Setting("SQLite", "WAL, synchronous=OFF", "sqlite3", _sqlite("OFF")),
)  # fmt: skip

#: This one, through the same hands.
OURS = Setting("mbframework", "write()", "mbframework", _ours)


def returned(path: str) -> int:
    """How many calls had returned, as noted in the file at ``path``."""
    with open(path, "rb") as file:
        return int.from_bytes(file.read(8), "little")


def measure(setting: Setting, folder: str, value: bytes, messages: int, seconds: float) -> float:
    """Nanoseconds per message, of so many, or of those that are put within about so many seconds."""
    put, _, close = setting.open(folder)
    try:
        put(value)
        done, begun = 0, time.perf_counter_ns()
        while done < messages and time.perf_counter_ns() - begun < seconds * 1e9:
            for _ in range(_STRIDE):
                put(value)
            done += _STRIDE
        return (time.perf_counter_ns() - begun) / done
    finally:
        close()


def put_until_killed(setting: Setting, folder: str, note: str, size: int) -> None:
    """Put messages with the numbers 0, 1, 2, … and note in the file at ``note`` how many calls have returned; until it
    is killed, or its standard input ends."""
    put, _, _ = setting.open(folder)
    with open(note, "r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE) as noted:
        for count in itertools.count(1):
            put(values(count - 1, 1, size)[0])
            # A store into a mapped file stays, whatever becomes of the process.
            noted[:8] = count.to_bytes(8, "little")
            if not count % _STRIDE and select.select([sys.stdin], [], [], 0)[0]:
                # Who gives the orders has gone.
                return


def _obey(order: dict[str, Any]) -> float | None:
    setting = next(each for each in (*SETTINGS, OURS) if each.name == order["name"])
    if order["what"] == "measure":
        with tempfile.TemporaryDirectory(prefix="mb-bench-", dir=order["directory"]) as folder:
            return measure(setting, folder, bytes(order["value"]), order["messages"], order["seconds"])
    put_until_killed(setting, order["folder"], order["note"], order["value"])
    return None


if __name__ == "__main__":
    serve(_obey)
