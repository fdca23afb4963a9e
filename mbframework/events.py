"""What happened: lines in the lane's event file, and calls of the observers.

Promises
--------
- Telling never waits and never raises: the caller's thread appends to a queue, the reporter's thread writes. Events
  that find the queue full are counted in ``dropped``.
- One process writes each file. At 4 MiB it is rotated; two are kept. Narration, not authority: after a kill the last
  second may be missing.
- Every text that did not come from this program goes through ``scrub``, which takes out the provider's secrets.

Each line is one JSON object: ``schema`` 1, ``at`` (seconds since 1970), ``boot_ns`` and ``boot_id`` (the boot clock, of
which boot), ``kind``, and the kind's own fields, as in docs/status.md.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mbframework.files import Files

if TYPE_CHECKING:
    from mbframework.observers import ObserverHub

ROTATE_BYTES = 4 << 20
_QUEUE = 4096


class EventLog:
    """The event file of one half of a lane. ``tell`` from any thread, ``flush`` and ``close`` from one at a time."""

    def __init__(
        self,
        files: Files,
        path: str,
        *,
        directory: str,
        lane: str,
        hub: ObserverHub | None = None,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._files = files
        self._path = path
        self._directory = directory
        self._lane = lane
        self._hub = hub
        self.scrub = scrub
        self._queue: deque[dict[str, Any]] = deque()
        self.dropped = 0

    def tell(self, kind: str, **facts: Any) -> None:
        """Queue a line."""
        if len(self._queue) >= _QUEUE:
            self.dropped += 1
            return
        files = self._files
        clocks = {"at": files.wall_ns() / 1e9, "boot_ns": files.boot_ns(), "boot_id": files.boot_id().hex()}
        self._queue.append({"schema": 1, **clocks, "kind": kind} | facts)

    def observe(self, hook: str, **facts: Any) -> None:
        """Tell the observers."""
        if self._hub is not None:
            self._hub.emit(f"mbframework_{hook}", directory=self._directory, lane=self._lane, **facts)

    def flush(self) -> None:
        """Write the queued lines out. What a device refuses waits for the next call."""
        told: list[dict[str, Any]] = []
        while self._queue:
            told.append(self._queue.popleft())
        if not told:
            return
        data = "".join(json.dumps(line, ensure_ascii=True, default=str) + "\n" for line in told).encode()
        try:
            self._rotate(len(data))
            fd = self._files.open(self._path, create=True)
            try:
                self._append(fd, data)
            finally:
                self._files.close(fd)
        except OSError:
            self._queue.extendleft(reversed(told))

    def _append(self, fd: int, data: bytes) -> None:
        end = self._files.fstat(fd).st_size
        try:
            self._files.append(fd, data)
        except OSError:
            # A full device takes a part: half a line would spoil the next one, and whole ones come again.
            self._files.truncate(fd, end)
            raise

    def _rotate(self, coming: int) -> None:
        try:
            size = self._files.stat(self._path).st_size
        except FileNotFoundError:
            return
        if size and size + coming > ROTATE_BYTES:
            older = f"{self._path}.1"
            if self._files.exists(older):
                self._files.unlink(older)
            self._files.rename(self._path, older)
