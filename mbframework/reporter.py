"""The thread that narrates: status files once a second and on a change of state, event lines, the head's heartbeat,
the rings of history.

Promises: narration never delays writing or sending. A status file is replaced whole; at most ten a second are
written. A ring gets a record about once a second, however often the state changes. One thread.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.history import Ring

_log = logging.getLogger("mbframework.reporter")
_LEAST = 0.1
#: Seconds between two looks at the requests.
_LOOK = 1.0
_INTAKE_WINDOW_NS = 10 * 10**9
#: A little less than a second, so that a thread that wakes once a second misses none.
_RECORD_NS = 9 * 10**8


class Reporter:
    """``state`` tells (state, reason) now; ``sections`` maps a status file's path to what it holds, and ``history`` a
    ring to its counters now (see :mod:`mbframework.history`)."""

    def __init__(
        self,
        *,
        files: Files,
        interval: float,
        state: Callable[[], tuple[str, str]],
        sections: Mapping[str, Callable[[], dict[str, Any]]],
        events: list[EventLog],
        heartbeat: Callable[[], None],
        accepted: Callable[[], int],
        history: Mapping[Ring, Callable[[], Sequence[int]]] | None = None,
        attend: Callable[[], object] = bool,
        mode: int = 0o600,
    ) -> None:
        self._files = files
        self._interval = interval
        self._state = state
        self._sections = sections
        self._events = events
        self._heartbeat = heartbeat
        self._accepted = accepted
        self._history = dict(history or {})
        self._recorded_at: int | None = None
        self._attend = attend
        self._mode = mode
        self._changed = threading.Event()
        self._stopping = False
        self.current = ""
        self.reason = ""
        #: When the present state began: wall-clock seconds as they were then, and by the boot clock.
        self.since = 0.0
        self.since_boot_ns = 0
        self._samples: deque[tuple[int, int]] = deque()
        self.thread = threading.Thread(target=self._run, name="mbframework-reporter", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def notify(self) -> None:
        """Something may have changed. Any thread."""
        self._changed.set()

    def stop(self, timeout: float | None) -> None:
        """Ask the thread to end and wait for it."""
        self._stopping = True
        self._changed.set()
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def intake(self) -> float:
        """Messages per second accepted in the last seconds. Any thread."""
        samples = list(self._samples)
        if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
            return 0.0
        (begun, before), (ended, after) = samples[0], samples[-1]
        return (after - before) * 1e9 / (ended - begun)

    def report(self, **extra: Any) -> None:
        """Write everything out now."""
        self._follow_state()
        now = self._files.boot_ns()
        self._samples.append((now, self._accepted()))
        while self._samples[0][0] < now - _INTAKE_WINDOW_NS:
            self._samples.popleft()
        for path, section in self._sections.items():
            state = {"since": self.since, "since_boot_ns": self.since_boot_ns, "reason": self.reason}
            content = section() | state | extra
            try:
                self._files.replace(path, json.dumps(content, default=str).encode(), self._mode)
            except OSError as error:
                _log.debug("the status cannot be written: %s", error)
        for log in self._events:
            log.flush()
        # Last words are recorded whenever they come.
        if extra or self._recorded_at is None or now - self._recorded_at >= _RECORD_NS:
            self._recorded_at = now
            self._record()

    def round(self) -> None:
        """The heartbeat, a report, and a look at the requests."""
        self._heartbeat()
        self.report()
        self._attend()

    def _record(self) -> None:
        for ring, counters in self._history.items():
            try:
                ring.put(counters())
            except OSError as error:
                _log.debug("the history cannot be written: %s", error)

    def _follow_state(self) -> None:
        # Why may change while the state does not: of a provider that was being opened and is now down.
        state, self.reason = self._state()
        if state == self.current:
            return
        before, self.current, reason = self.current, state, self.reason
        self.since, self.since_boot_ns = self._files.wall_ns() / 1e9, self._files.boot_ns()
        if before:
            for log in self._events[:1]:
                log.tell("state", before=before, after=state, reason=reason)
                log.observe("state_changed", before=before, after=state, reason=reason)

    def _pause(self) -> float:
        """Seconds until the next report: those of a change in between do not put a record off."""
        if not self._history or self._recorded_at is None:
            return self._interval
        due = max(self._interval, 1.0) - (self._files.boot_ns() - self._recorded_at) / 1e9
        return min(self._interval, max(_LEAST, due))

    def _rest(self, seconds: float) -> bool:
        """Wait, but for looks at what is asked for; True where something changed meanwhile."""
        while seconds > _LOOK:
            if self._changed.wait(_LOOK):
                return True
            seconds -= _LOOK
            self._attend()
        return self._changed.wait(seconds)

    def _run(self) -> None:
        pace = threading.Event()
        while not self._stopping:
            try:
                self.round()
            except Exception:  # noqa: BLE001  (narration must not end because of one defect in it)
                _log.exception("reporting failed")
            if self._rest(self._pause()):
                self._changed.clear()
                if not self._stopping:
                    pace.wait(_LEAST)
