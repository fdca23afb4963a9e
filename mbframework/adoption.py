"""What other processes have left in their lanes is sent by one that is still there.

Promises
--------
- A lane is adopted whose writer is gone and that nobody sends, when it has been so for ``adopt_after``: before that,
  the process that comes in the place of the other one takes it whole.
- It is only sent: its order, limits, accounts and provider connection are its own. When nothing waits in it any more
  it is free again; so it is while the provider does not answer, since a process that comes may then write to it.
- Whatever goes wrong with it concerns neither the lane of this process nor its threads.
- A fork copies no lock of it: all that is opened here is opened while no fork can come in between.

One thread, which begins with :meth:`Adoption.start`; everything else may be called from any other.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mbframework import pause
from mbframework.errors import MessageBufferError
from mbframework.lockfile import has_writer
from mbframework.mending import unfinished
from mbframework.plugins.source import CREATING

if TYPE_CHECKING:
    from mbframework.config import Config
    from mbframework.directory import Directory
    from mbframework.files import Files
    from mbframework.observers import ObserverHub
    from mbframework.plugins.source import ProviderSource
    from mbframework.sender import Sender
    from mbframework.sidecar import Sidecar

_log = logging.getLogger("mbframework.adoption")
#: Seconds between two looks at lanes that are being sent.
_TEND_S = 0.5
#: So many times as long it takes until a lane that could not be sent is tried again.
_LATER = 5


class Adoption:
    """Beside an engine: sends the orphans among the lanes that are called as ``config.lane`` is. ``own`` is not one."""

    def __init__(
        self, files: Files, config: Config, source: ProviderSource, directory: Directory, own: str,
        hub: ObserverHub | None, answers: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._files = files
        self._config = config
        self._source = source
        self._directory = directory
        self._hub = hub
        self._names = re.compile(rf"{re.escape(config.lane)}(-[0-9]+)?")
        self._own = own
        self._answers = answers
        self._stopping = threading.Event()
        self._sidecar: Sidecar | None = None
        #: Since when (boot time, nanoseconds) a lane has been an orphan; and one that is sent without an answer.
        self._since: dict[str, int] = {}
        self._silent: dict[str, int] = {}
        self._patience = int(config.adopt_after * 1e9)
        self.thread = threading.Thread(target=self._run, name=f"mbframework-adoption-{own}", daemon=True)

    @classmethod
    def beside(
        cls, files: Files, config: Config, source: ProviderSource | None, directory: Directory, own: str,
        hub: ObserverHub | None, answers: Callable[[], bool],
    ) -> Adoption | None:  # fmt: skip
        """One, where this process can send more than its own lane. ``answers`` says whether the provider answers."""
        if source is None or not source.shareable or not config.share or directory.barred:
            return None
        return cls(files, config, source, directory, own, hub, answers)

    def start(self) -> None:
        """Begin to look. Raises RuntimeError where the system gives no thread."""
        self.thread.start()

    def stop(self) -> None:
        """Ask the thread to let go of everything."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for its end, so many seconds at most."""
        if self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def senders(self) -> list[Sender]:
        """Who calls providers here, for a process that forks."""
        return [] if self._sidecar is None else [lane.sender for lane in list(self._sidecar.lanes.values())]

    def forget(self) -> None:
        """In a forked child: let go of the parent's files."""
        if self._sidecar is not None:
            self._sidecar.forget()

    def _run(self) -> None:
        wait = min(5.0, self._config.adopt_after / 2)
        try:
            while not self._stopping.wait(_TEND_S if self._sidecar is not None and self._sidecar.lanes else wait):
                self._look()
        except BaseException:
            # The thread's last word: without it a defect of ours would go unnoticed.
            _log.critical("%s: adopting lanes has ended by a defect", self._directory.path, exc_info=True)
            raise
        finally:
            if self._sidecar is not None:
                self._sidecar.close(min(1.0, self._config.close_timeout))

    def _look(self) -> None:
        try:
            ripe = self._ripe()
            # No fork between what is opened and its being known to forget().
            with CREATING:
                if self._stopping.is_set():
                    return
                if self._sidecar is None and ripe:
                    self._sidecar = self._make()
                if self._sidecar is not None:
                    if ripe:
                        self._sidecar.adopt()
                    self._sidecar.tend()
            # A sender that waits for CREATING could not end while it is held.
            if self._sidecar is not None:
                self._give_up(self._sidecar)
        except (MessageBufferError, OSError) as error:
            _log.warning("%s: lanes that other processes left cannot be looked at: %s", self._directory.path, error)

    def _make(self) -> Sidecar:
        # Late, since most processes never adopt anything.
        from mbframework.sidecar import Sidecar

        return Sidecar(self._config, self._source, self._files, wanted=self._is_ripe, hub=self._hub)

    def _give_up(self, sidecar: Sidecar) -> None:
        """Let go of lanes that cannot be sent; they are tried again much later."""
        now = self._files.boot_ns()
        mute = [name for name, lane in sidecar.lanes.items() if not lane.sender.up]
        self._silent = {name: self._silent.get(name, now) for name in mute}
        for name in mute:
            if now - self._silent[name] >= self._patience or not self._answers():
                sidecar.release(name)
                self._since[name] = now + _LATER * self._patience

    def _is_ripe(self, name: str) -> bool:
        since = self._since.get(name)
        return since is not None and self._files.boot_ns() - since >= self._patience

    def _ripe(self) -> bool:
        """Whether one of the orphans has waited long enough, and could be sent."""
        sent = () if self._sidecar is None else self._sidecar.lanes
        orphans = [name for name in self._directory.lanes(self._files) if name not in sent and self._is_orphan(name)]
        now = self._files.boot_ns()
        self._since = {name: self._since.get(name, now) for name in orphans}
        return any(map(self._is_ripe, orphans)) and self._answers()

    def _is_orphan(self, name: str) -> bool:
        path = self._directory.lane_path(name)
        if name == self._own or not self._names.fullmatch(name):
            return False
        try:
            # A fork would copy the lock that is taken for a moment to see whether it is free.
            with CREATING:
                written = has_writer(self._files, path)
            if written or pause.read(self._files, path) is not None:
                return False
            return unfinished(self._files, path)
        except OSError:
            # It may be made or removed at this moment; a broken one is for who opens it to tell.
            return False
