"""Where figures come from: directories, watched from outside, and buffers of this process.

Promises
--------
- Reading never raises for what it finds, and ends within its patience: each source is read on a thread of its own. Of
  one that does not answer (a file system that hangs) what it said in the last minute still counts; after that it is one
  that cannot be read.
- Nothing runs between two readings, and nothing needs to be closed.

Any thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from mbframework.errors import ConfigurationError
from mbframework.files import Files
from mbframework.metrics.samples import LaneReading, Reading
from mbframework.monitor import Monitor
from mbframework.printable import shortened
from mbframework.spool import layout
from mbframework.status import LaneStatus, read_narration

#: Seconds that a reading may take before an older one is used, and for which that is.
PATIENCE_S = 5.0
KEPT_S = 60.0
_WORDS = 300


class Buffer(Protocol):
    """A :class:`~mbframework.MessageBuffer`; of an AsyncMessageBuffer it is the attribute ``buffer``."""

    @property
    def directory(self) -> str:
        """The absolute path of its directory."""
        ...

    def status(self) -> LaneStatus:
        """The lane that it writes to."""
        ...


SourceArgument = Buffer | str | os.PathLike[str]


class Source:
    """One directory, or one buffer: ``ask()``, and a little later ``answer()``."""

    def __init__(self, directory: str, read: Callable[[], Reading]) -> None:
        self.directory = directory
        self._read = read
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._known: tuple[float, Reading] | None = None
        self._asked: float | None = None

    def ask(self) -> None:
        """Begin to read, where that is not under way."""
        with self._lock:
            # After a fork the thread is not alive, whatever it was about to do.
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread, self._asked = None, time.monotonic()
            thread = threading.Thread(target=self._look, name="mbframework-metrics", daemon=True)
            # Where the process may have no more threads, there is no answer.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def answer(self, timeout: float) -> Reading:
        """What was read, after at most ``timeout`` seconds."""
        with self._lock:
            thread, asked = self._thread, self._asked
        if thread is not None:
            thread.join(timeout)
        known, now = self._known, time.monotonic()
        if known is not None and now - known[0] < KEPT_S:
            return known[1]
        silent = now - asked if asked is not None else 0.0
        return Reading(self.directory, error=f"{self.directory} has not answered for {silent:.0f} s; is its disk well?")

    def _look(self) -> None:
        try:
            reading = self._read()
        except Exception as error:  # noqa: BLE001  (a scrape must tell what can be told, of the others at least)
            reading = Reading(self.directory, error=shortened(str(error) or type(error).__name__, _WORDS))
        self._known = time.monotonic(), reading


def source_of(source: SourceArgument) -> Source:
    """What is given, to be read.

    :raises ConfigurationError: it is neither a path nor a buffer.
    """
    if isinstance(source, (str, os.PathLike)):
        return of_directory(source)
    if not (hasattr(source, "status") and hasattr(source, "directory")):
        raise ConfigurationError(
            f"{type(source).__name__} is no source of metrics; expected a MessageBuffer, or the path of a directory"
        )
    return of_buffer(source)


def of_directory(path: str | os.PathLike[str], files: Files | None = None) -> Source:
    """A buffer's directory, with all its lanes, whoever works in it."""
    files = files or Files()
    monitor = Monitor(path, files)

    def read() -> Reading:
        view = monitor.look()
        lanes = tuple(_lane(files, view.directory, lane.status, lane.total_size) for lane in view.lanes)
        return Reading(view.directory, lanes, view.problems, view.error)

    return Source(monitor.directory, read)


def of_buffer(buffer: Buffer, files: Files | None = None) -> Source:
    """A buffer of this process: the lane that it writes to."""
    files = files or Files()

    def read() -> Reading:
        status = buffer.status()
        return Reading(buffer.directory, (_lane(files, buffer.directory, status, None),))

    return Source(buffer.directory, read)


def _lane(files: Files, directory: str, status: LaneStatus, limit: int | None) -> LaneReading:
    """The lane with what only its status files tell."""
    path = os.path.join(directory, status.name)
    sender = read_narration(files, os.path.join(path, layout.SENDER_STATUS_FILE))
    if limit is None:
        writer = read_narration(files, os.path.join(path, layout.WRITER_STATUS_FILE))
        limit = _whole(_table(writer, "limits").get("total_size"))
    return LaneReading(status, limit or None, _whole(_table(sender, "traffic").get("retries")))


def _table(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = told.get(name)
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < layout.U64_LIMIT:
        return None
    return value


class Sources:
    """Several of them, read together."""

    def __init__(self, sources: tuple[SourceArgument, ...] = (), patience_s: float = PATIENCE_S) -> None:
        self._patience = patience_s
        self._lock = threading.Lock()
        self._sources: dict[object, Source] = {}
        for source in sources:
            self.add(source)

    def add(self, source: SourceArgument) -> None:
        """One more. Raises ConfigurationError: it is neither a path nor a buffer."""
        made = source_of(source)
        with self._lock:
            self._sources.setdefault(_key(source), made)

    def remove(self, source: SourceArgument) -> None:
        """One less; nothing where it is not there."""
        with self._lock:
            self._sources.pop(_key(source), None)

    def read(self) -> list[Reading]:
        """A reading of each, after at most about the patience for all of them together."""
        with self._lock:
            # A buffer of this process knows more than its directory does.
            sources = sorted(self._sources.items(), key=lambda item: isinstance(item[0], str))
        end = time.monotonic() + self._patience
        for _, source in sources:
            source.ask()
        return [source.answer(max(0.0, end - time.monotonic())) for _, source in sources]


def _key(source: SourceArgument) -> object:
    """Paths are the same that lead to the same place; a buffer is the same as itself only."""
    if isinstance(source, (str, os.PathLike)):
        return os.path.abspath(os.fspath(source))
    return id(source)
