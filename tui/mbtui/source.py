"""Where the views come from: the monitors of the directories that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mbframework.monitor import Event, Monitor, View


class Source(Protocol):
    """What the dashboard reads; all of it is called on one thread."""

    def look(self) -> tuple[View, ...]:
        """A view of each directory."""
        ...

    def events(self, directory: str, lane: str) -> list[Event]:
        """The last events of a lane, newest last."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Directories:
    """The source for directories on disk."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._monitors = [Monitor(directory) for directory in directories]
        self._by_directory: dict[str, Monitor] = {}

    def look(self) -> tuple[View, ...]:
        views = []
        for monitor in self._monitors:
            view = monitor.look()
            self._by_directory[view.directory] = monitor
            views.append(view)
        return tuple(views)

    def events(self, directory: str, lane: str) -> list[Event]:
        return self._by_directory[directory].events(lane)

    def close(self) -> None:
        for monitor in self._monitors:
            monitor.close()
