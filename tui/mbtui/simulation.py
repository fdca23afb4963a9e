"""What the simulator runs: a real buffer in a temporary directory, a writer that keeps a pace, a provider that obeys.

Promises
--------
- The provider, of any URL, stands behind the fault wrapper, which makes it slow, unreachable or failing on demand.
- The writing and the looking have a thread each. Controls and :attr:`Simulation.picture` may be used from any thread;
  of them only :meth:`set_mode` may wait.
- :meth:`close` ends both threads and the buffer, and removes the directory, whatever state they are in.

Rates are messages per second, delays and ages seconds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mbframework_fault.provider import FaultProvider

from mbframework.buffer import MessageBuffer
from mbframework.config import Mode
from mbframework.errors import BufferClosed, CloseIncomplete, MessageBufferError, NotAccepted
from mbframework.files import Files
from mbframework.monitor import SegmentState
from mbframework.plugins.source import resolve_url
from mbframework.spool.survey import Found, survey
from mbframework.state import SENDING_STATES
from mbframework.status import LaneStatus
from mbframework.units import KiB, MiB
from mbtui.pacing import Pace

MODES: tuple[Mode, ...] = ("buffer", "always", "block", "raise")

#: Small, so that segments come and go, and the limit is reached, while one looks.
SEGMENT_SIZE, TOTAL_SIZE = 256 * KiB, 8 * MiB
#: Few messages a call, so that the provider's delay tells.
BATCH_MESSAGES = 100
TOPIC = "simulated"
LOOK_EVERY_S = 0.5
#: Half-seconds that the picture remembers.
HISTORY = 240
#: Rates are means over so many looks.
SMOOTHED_OVER = 3
_MOST_AT_ONCE = 100
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class SegmentPicture:
    """One segment file: its name, the messages in it, how many of them still wait, and what happens to it."""

    name: str
    state: SegmentState
    size: int
    messages: int
    left: int

    @property
    def done(self) -> float:
        """The share that is delivered, from 0 to 1."""
        return 1.0 - self.left / self.messages if self.messages else 0.0


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be seen at one moment. ``incoming`` and ``outgoing`` are the rates of the last looks, newest last."""

    status: LaneStatus
    incoming: tuple[float, ...]
    outgoing: tuple[float, ...]
    refused: int
    injected: int
    segments: tuple[SegmentPicture, ...]

    @property
    def in_rate(self) -> float:
        """Messages accepted per second, just now."""
        return _mean(self.incoming[-SMOOTHED_OVER:])

    @property
    def out_rate(self) -> float:
        """Messages delivered per second, just now."""
        return _mean(self.outgoing[-SMOOTHED_OVER:])


class Simulation:
    """A running simulation; a context manager.

    :param provider: the URL of the provider behind the fault wrapper.
    :param message_size: bytes of each value.

    :raises MessageBufferError: the URL or a size is wrong, or the provider is not installed; nothing is left behind.
    """

    def __init__(
        self,
        provider: str = "fake:",
        *,
        pace: float = 0.0,
        mode: Mode = "buffer",
        message_size: int = 200,
        segment_size: int = SEGMENT_SIZE,
        total_size: int = TOTAL_SIZE,
    ) -> None:
        source = resolve_url(provider)
        self.provider = source.display
        self._fault = FaultProvider(source)
        self._pace = pace
        self._mode = mode
        self._message_size = message_size
        self._refused = 0
        self._injected = 0
        self._down = False
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._files = Files()
        self._incoming: deque[float] = deque(maxlen=HISTORY)
        self._outgoing: deque[float] = deque(maxlen=HISTORY)
        self.directory = tempfile.mkdtemp(prefix="mb-simulate-")
        try:
            self._buffer = MessageBuffer(
                self.directory,
                self._fault,
                mode=mode,
                segment_size=segment_size,
                total_size=total_size,
                segment_age="10s",
                min_free="16MiB",
                batch_messages=BATCH_MESSAGES,
                retry_wait_max="1s",
                catch_up="full",
            )
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        self._lane = os.path.join(self.directory, self._buffer.lane)
        self._looked_at = time.monotonic()
        self._status = self._buffer.status()
        self.picture = self._draw()
        self._threads = [
            threading.Thread(target=self._write, name="simulation-writer", daemon=True),
            threading.Thread(target=self._look, name="simulation-look", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove the directory. A second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._changed.set()
        try:
            # First, since a writer in the mode block waits until the buffer closes.
            self._buffer.close(_CLOSE_S)
        except CloseIncomplete:
            # What is left over was made up.
            pass
        finally:
            for thread in self._threads:
                thread.join()
            shutil.rmtree(self.directory, ignore_errors=True)

    # ---- controls

    @property
    def down(self) -> bool:
        """Whether the provider is kept out of reach."""
        return self._down

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self._mode

    @property
    def pace(self) -> float:
        """The messages per second that are asked for; 0: off."""
        return self._pace

    def set_pace(self, rate: float) -> None:
        """Write so many messages per second from now on."""
        self._pace = rate
        self._changed.set()

    def set_delay(self, seconds: float) -> None:
        """Let each call of the provider, of up to BATCH_MESSAGES messages, take that much longer."""
        self._fault.set_delay(seconds)

    def set_down(self, down: bool) -> None:
        """Let the provider be out of reach, or within reach again."""
        self._down = down
        if down:
            self._fault.down()
        else:
            self._fault.up()

    def inject_error(self) -> None:
        """Let the next call of the provider fail."""
        self._injected += 1
        self._fault.inject_error()

    def set_mode(self, mode: Mode) -> None:
        """Change the mode.

        :raises ModeError: not now; the text says why.
        """
        self._buffer.set_mode(mode)
        self._mode = mode

    # ---- the two threads

    def _write(self) -> None:
        pace = Pace(time.monotonic())
        number = 0
        while not self._stop.is_set():
            rate = self._pace
            due = pace.due(time.monotonic(), rate)
            while due and not self._stop.is_set():
                count = min(due, _MOST_AT_ONCE)
                due -= count
                values = [f"message {number + i:,} ".ljust(self._message_size, ".") for i in range(count)]
                number += count
                try:
                    self._buffer.write_many(TOPIC, values)
                except BufferClosed:
                    return
                except NotAccepted as error:
                    self._refused += count - len(error.accepted)
            self._changed.wait(pace.wait(rate))
            self._changed.clear()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            now, status = time.monotonic(), self._buffer.status()
            passed = max(now - self._looked_at, 0.001)
            self._incoming.append(max(0, status.accepted - self._status.accepted) / passed)
            self._outgoing.append(max(0, status.delivered - self._status.delivered) / passed)
            self._looked_at, self._status = now, status
            self.picture = self._draw()

    def _draw(self) -> Picture:
        return Picture(
            status=self._status,
            incoming=tuple(self._incoming),
            outgoing=tuple(self._outgoing),
            refused=self._refused,
            injected=self._injected,
            segments=self._segments(),
        )

    def _segments(self) -> tuple[SegmentPicture, ...]:
        try:
            found = survey(self._files, self._lane).segments
        except (OSError, MessageBufferError):
            # A look that came between two steps of the engine; the next one comes soon.
            return self.picture.segments
        status = self._status
        return segment_pictures(found, status.seek.sequence, sending=status.state in SENDING_STATES)


def segment_pictures(found: list[Found], following: int, *, sending: bool) -> tuple[SegmentPicture, ...]:
    """The segments, the oldest first; ``following`` is the sequence that is sent next, ``sending`` whether any is."""
    pictures = []
    for number, each in enumerate(found):
        first, end = each.header.first, each.end or each.header.first
        last = number == len(found) - 1
        filling = last and not each.entry.name.startswith("P")
        left = max(0, end - max(first, following))
        state: SegmentState
        if first <= following < end:
            state = "draining" if sending else "next"
        elif filling:
            state = "filling"
        else:
            state = "drained" if end <= following else "sealed"
        size = each.walked.offset if each.walked is not None else each.size
        pictures.append(SegmentPicture(each.entry.name, state, size, end - first, left))
    return tuple(pictures)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else 0.0
