"""A buffer's directory, watched: one view a look.

Promises
--------
- Needs no connection to the engine: the directory of a dead program is watched as that of a running one.
- Nothing that stands in the directory makes a look raise: what cannot be shown is said in the view's ``error`` or
  ``problems``, and is shown again as soon as it can be. A directory that is replaced by another buffer's begins anew.
- Keeps no file open between two looks.

``look`` and ``close`` are for one thread, ``events`` and the tables of a view for any.
"""

from __future__ import annotations

import os
import stat

from mbframework import directory as directories
from mbframework.errors import MessageBufferError, NotABuffer
from mbframework.files import Files
from mbframework.monitor.events import EventFiles
from mbframework.monitor.lane import LaneWatch
from mbframework.monitor.view import Event, LaneView, View
from mbframework.printable import shortened

_WORDS = 300


class Monitor:
    """See the module. Making one reads nothing and never fails."""

    def __init__(self, path: str | os.PathLike[str], files: Files | None = None) -> None:
        self.directory = os.path.abspath(os.fspath(path))
        self._files = files or Files()
        self._id = ""
        self._lanes: dict[str, LaneWatch] = {}

    def look(self) -> View:
        """The buffer as it is now. Never raises for what it finds. About once or twice a second is enough."""
        at = self._files.wall_ns() / 1e9
        ahead = at - self._files.boot_ns() / 1e9
        try:
            identity, names = self._identify()
        except MessageBufferError as error:
            return self._nothing(at, str(error))
        except OSError as error:
            return self._nothing(at, f"{self.directory} cannot be read: {error.strerror or error}")
        problems: list[str] = []
        self._lanes = {name: watch for name, watch in self._lanes.items() if name in names}
        lanes = [lane for name in names if (lane := self._look_at(name, problems)) is not None]
        return View(
            directory=self.directory,
            id=identity,
            at=at,
            ahead=ahead,
            lanes=tuple(lanes),
            problems=tuple(shortened(problem, _WORDS) for problem in problems),
        )

    def events(self, lane: str, limit: int = 500) -> list[Event]:
        """The last ``limit`` events of a lane, newest last; none of a lane that is not there."""
        watch = self._lanes.get(lane)
        if watch is not None:
            return watch.events.last(limit)
        if os.path.basename(lane) != lane or lane in ("", os.curdir, os.pardir):
            return []
        return EventFiles(self._files, os.path.join(self.directory, lane), lane).last(limit)

    def close(self) -> None:
        """Forget what the looks have gathered."""
        self._lanes = {}

    def _identify(self) -> tuple[str, list[str]]:
        """The buffer's id and its lanes. Raises MessageBufferError, OSError."""
        # A link to a buffer is as good as the buffer: a monitor changes nothing.
        if not stat.S_ISDIR(self._files.stat(os.path.realpath(self.directory)).st_mode):
            raise NotABuffer(f"{self.directory} is not a directory; give that of a buffer")
        identity = str(directories.read(self._files, self.directory)["id"])
        names = directories.lanes_of(self._files, self.directory)
        if identity != self._id:
            self._id, self._lanes = identity, {}
        return identity, names

    def _nothing(self, at: float, why: str) -> View:
        self._lanes = {}
        return View(directory=self.directory, at=at, error=shortened(why, _WORDS))

    def _look_at(self, name: str, problems: list[str]) -> LaneView | None:
        watch = self._lanes.get(name)
        if watch is None:
            watch = self._lanes[name] = LaneWatch(self._files, os.path.join(self.directory, name), name)
        try:
            return watch.look(problems)
        except FileNotFoundError:
            # It was removed while it was looked at.
            problems.append(f"lane {name} has gone")
        except OSError as error:
            problems.append(f"lane {name} cannot be read: {error.strerror or error}")
        except MessageBufferError as error:
            problems.append(f"lane {name}: {error}")
        except Exception as error:  # noqa: BLE001  (one lane that meets a defect of ours must not hide the others)
            problems.append(f"lane {name} cannot be shown: {type(error).__name__}: {error}")
        return None
