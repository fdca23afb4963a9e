"""What the directory tells while all this goes on, read twice a second like a monitor would.

Promises
--------
- Every change of state that lasts for half a second is told with its time, and can be waited for.
- Over each stretch of live state (its first and last second left out, for the status is up to that old) the ordinals
  of the spool are compared: none may have been given, which means that no frame was appended to disk.

One thread; ``wait_for`` and the results may be used from any.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from mbframework import status
from mbframework.errors import DirectoryError
from mbframework.files import Files
from mbframework.spool.survey import survey

INTERVAL_S = 0.5
_MARGIN = 2


class Sample(NamedTuple):
    """One look: ``ordinal`` is the number of messages ever appended to disk."""

    at: float
    state: str
    since: float | None
    pid: int | None
    accepted: int
    ordinal: int


class Watcher:
    """See the module. ``clock`` tells the seconds since the run began, ``say`` prints a line."""

    def __init__(self, directory: str, lane: str, clock: Callable[[], float], say: Callable[[str], None]) -> None:
        self._directory = directory
        self._lane_path = f"{directory}/{lane}"
        self._clock = clock
        self._say = say
        self._files = Files()
        self._stretch: list[Sample] = []
        self._changed = threading.Condition()
        self._state = ""
        self._state_at = 0.0
        self._stop = threading.Event()
        self.faults: list[str] = []
        #: Messages accepted in live state between samples that saw no frame appended.
        self.live_shown = 0
        self.looks_in: Counter[str] = Counter()
        self.unbalanced = 0
        self._thread = threading.Thread(target=self._run, name="torture-watcher", daemon=True)

    def start(self) -> None:
        """Begin to look; the directory is there."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._judge_stretch()

    def wait_for(self, state: str, timeout: float, *, since: float = 0.0) -> bool:
        """Whether a look later than ``since`` finds the lane in ``state`` within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._state != state or self._state_at <= since:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                self._look()
            except (DirectoryError, OSError, ValueError) as error:
                self.faults.append(f"at {self._clock():.1f} s the status could not be read: {error!r}")

    def _look(self) -> None:
        at = self._clock()
        lane = status.read(self._directory).lanes[0]
        ordinal = survey(self._files, self._lane_path).ordinal
        sample = Sample(at, lane.state, lane.state_since, lane.writer_pid, lane.accepted, ordinal)
        self.unbalanced += not lane.balanced
        self.looks_in[lane.state] += 1
        if min(lane.accepted, lane.delivered, lane.lost, lane.resident_messages) < 0:
            self.faults.append(f"at {at:.1f} s a count is negative: {lane}")
        with self._changed:
            before, self._state, self._state_at = self._state, sample.state, at
            self._changed.notify_all()
        if before != sample.state:
            why = f" ({lane.state_reason})" if lane.state_reason else ""
            self._say(f"state {before or 'unknown'} → {sample.state}{why}; {lane.resident_messages:,} waiting")
        if self._stretch and self._stretch[-1][1:4] != sample[1:4]:
            self._judge_stretch()
        if sample.state == "live":
            self._stretch.append(sample)

    def _judge_stretch(self) -> None:
        """The samples of one stretch of live state are complete."""
        inner = self._stretch[_MARGIN:-_MARGIN]
        self._stretch = []
        if len(inner) < 2:
            return
        first, last = inner[0], inner[-1]
        if first.ordinal != last.ordinal:
            self.faults.append(
                f"from {first.at:.1f} to {last.at:.1f} s the lane said it was live, and "
                f"{last.ordinal - first.ordinal} messages were appended to disk"
            )
        else:
            self.live_shown += last.accepted - first.accepted
