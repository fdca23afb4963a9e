"""Notices that files come and go in the buffers' directories, so that a change is on the screen at once.

Promises
--------
- It only nudges: the observer's threads read nothing and touch no widget. What is written into files raises nothing.
- Without it nothing is missing but haste, since the directories are looked at every second anyway. So where the
  system has no more inotify instances, on network and overlay file systems, which tell nothing of what happens on the
  other side, and where polling is asked for, that look is all there is.
- A directory that disappears and comes back is watched again.

``follow`` and ``close`` are called on one thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mbframework.files import NETWORK, Files

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, ObservedWatch

#: Each watch takes two threads and an inotify instance; further directories are looked at every second.
_MOST = 16
_SILENT = NETWORK | {"overlay", "aufs", "fuse.mergerfs", "virtiofs", "vboxsf"}


class Watcher:
    """Calls ``nudge`` when a file was made, removed or renamed. ``polling``: why a directory is not watched."""

    def __init__(self, nudge: Callable[[], None], *, poll: bool = False) -> None:
        self._nudge = nudge
        self._files = Files()
        self._observer: BaseObserver | None = None
        self._watches: dict[str, tuple[tuple[int, int], ObservedWatch]] = {}
        self._given_up: dict[str, tuple[int, int]] = {}
        self.polling = "asked for" if poll else ""
        self._poll = poll

    @property
    def watched(self) -> set[str]:
        """The directories that tell of themselves."""
        return set(self._watches)

    def follow(self, directories: Iterable[str]) -> None:
        """Watch these directories, those that are there."""
        if self._poll:
            return
        wanted = {}
        for path in directories:
            with contextlib.suppress(OSError):
                info = os.stat(path)
                wanted[path] = (info.st_dev, info.st_ino)
        for path, (identity, watch) in list(self._watches.items()):
            if wanted.get(path) != identity:
                self._forget(path, watch)
        for path, identity in wanted.items():
            if path not in self._watches and self._given_up.get(path) != identity:
                self._watch(path, identity)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(2.0)
            self._observer = None
        self._watches.clear()

    def _watch(self, path: str, identity: tuple[int, int]) -> None:
        kind = self._files.file_system(path)
        if kind in _SILENT:
            self._give_up(path, identity, f"on {kind}")
            return
        if len(self._watches) >= _MOST:
            self._give_up(path, identity, "many directories")
            return
        # Imported on the reading thread, once the first picture is on the screen.
        from watchdog.events import (
            DirCreatedEvent,
            DirDeletedEvent,
            DirMovedEvent,
            FileCreatedEvent,
            FileDeletedEvent,
            FileMovedEvent,
            FileSystemEvent,
            FileSystemEventHandler,
        )
        from watchdog.observers import Observer

        nudge = self._nudge

        class Nudge(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                nudge()

        try:
            if self._observer is None:
                observer = Observer()
                observer.start()
                self._observer = observer
            watch = self._observer.schedule(
                Nudge(),
                path,
                recursive=True,
                event_filter=[
                    FileCreatedEvent,
                    FileDeletedEvent,
                    FileMovedEvent,
                    DirCreatedEvent,
                    DirDeletedEvent,
                    DirMovedEvent,
                ],
            )
        except OSError as error:
            self._give_up(path, identity, error.strerror or "no notification")
            return
        self._watches[path] = (identity, watch)

    def _give_up(self, path: str, identity: tuple[int, int], why: str) -> None:
        self._given_up[path] = identity
        self.polling = why

    def _forget(self, path: str, watch: ObservedWatch) -> None:
        del self._watches[path]
        if self._observer is not None:
            # The observer drops the watch of a directory that went.
            with contextlib.suppress(KeyError, OSError):
                self._observer.unschedule(watch)
