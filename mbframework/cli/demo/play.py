"""The demo's plot, from live to live, seen through the buffer's directory.

Each step waits for what it shows, never for a time; a step that is not reached ends the demo with what was seen last.
One thread.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from mbframework.cli.demo.screen import Screen
from mbframework.cli.demo.stage import Stage
from mbframework.cli.demo.verdict import Note, Verdict, judge
from mbframework.cli.demo.writer import Part
from mbframework.errors import DirectoryError
from mbframework.status import BufferStatus, LaneStatus, read

#: Seconds in which the writer writes all its messages.
WRITING_S = 12.0
#: Seconds for one step at most.
PATIENCE_S = 45.0
_LOOK_S = 0.1


class Stuck(Exception):
    """A step of the demo was not reached, or the writer ended by itself; the text says what was seen last."""


@contextmanager
def _stage_trouble() -> Iterator[None]:
    """The demo's own trouble with the provider ends it like a step that was not reached."""
    try:
        yield
    except (RuntimeError, OSError, sqlite3.Error) as error:
        # The errors of kafka-python and of the testing kit's broker are RuntimeErrors.
        raise Stuck(f"{type(error).__name__}: {error}") from error


class Play:
    """One performance. As a context manager it leaves no process behind."""

    def __init__(self, stage: Stage, folder: Path, messages: int, screen: Screen) -> None:
        self._stage = stage
        self._messages = messages
        self._screen = screen
        self.directory = str(folder / "outbox")
        self._ledger = folder / "ledger"
        self._log = folder / "writer.log"
        self._runs = 0
        self._writer: subprocess.Popen[bytes] | None = None
        self._seen: LaneStatus | None = None
        self._states: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.end_step()
        if self._writer is not None:
            self._kill()

    def run(self) -> Verdict:
        """Play it. Raises Stuck."""
        messages, stage, screen = self._messages, self._stage, self._screen
        screen.say(
            f"A program writes {messages / WRITING_S:,.0f} messages a second, mode 'buffer', to {stage.about}. You "
            "watch its buffer from outside: all numbers come from the directory."
        )
        screen.step("Live", "Messages go from memory straight to the provider; nothing touches the disk.")
        self._start(down=False)
        self._until("live", lambda lane: lane.accepted >= 0.2 * messages)

        screen.step("Outage, and buffering", f"{stage.outage} The program goes on writing, into segment files.")
        self._switch("down")
        self._until("buffering", lambda lane: lane.resident >= 0.2 * messages)

        screen.step("kill -9", "The program is killed in the middle of it. Soon its directory tells that it is dead.")
        self._kill()
        waiting = self._until("dead", lambda lane: bool(lane.resident)).resident

        screen.step(
            "Restart, still in the outage",
            f"The program is started again. It finds the {waiting:,} messages that wait, and appends behind them.",
        )
        self._start(down=True)
        self._until("buffering", lambda lane: lane.resident >= waiting + 0.1 * messages)

        screen.step(
            "The provider is back",
            "Draining: what waits goes first, in order, and faster than new messages come in. Then it is live again.",
        )
        self._switch("up")
        self._until("live", lambda lane: lane.resident < waiting)

        screen.step("Live again", "As if nothing had happened. The program writes its last messages and closes.")
        self._until("live", lambda lane: lane.accepted >= messages)
        final = self._finish()

        screen.step("Check", f"What arrived is read back from {stage.place} and compared with what was acknowledged.")
        with _stage_trouble():
            arrived = stage.arrived(final.id)
        verdict = judge(self._read_ledger(), arrived, final.lanes[0], kills=1, once=stage.once)
        verdict.waiting_at_kill, verdict.states = waiting, self._states
        verdict.provider = stage.display
        screen.say("")
        return verdict

    # ---- the writer

    def _start(self, *, down: bool) -> None:
        self._runs += 1
        stage = self._stage
        part = Part(
            directory=self.directory, ledger=str(self._ledger), provider=stage.provider, topic=stage.topic,
            run=self._runs, rate=self._messages / WRITING_S, plugged=stage.plugged, down=down and stage.plugged,
            partition=stage.partition,
        )  # fmt: skip
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the demo, which then sees to the writer's end.
            self._writer = subprocess.Popen(
                [sys.executable, "-m", "mbframework.cli.demo.writer"], stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        # Not by argv: a URL may hold a password.
        self._tell(json.dumps(asdict(part)))

    def _tell(self, line: str) -> None:
        if self._writer is None or self._writer.stdin is None:
            raise AssertionError("there is no writer to tell")
        self._writer.stdin.write(line.encode() + b"\n")
        self._writer.stdin.flush()

    def _switch(self, order: str) -> None:
        with _stage_trouble():
            if self._stage.plugged:
                self._tell(order)
            elif order == "down":
                self._stage.fail()
            else:
                self._stage.mend()

    def _kill(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.kill()
            self._leave(writer, PATIENCE_S)

    def _finish(self) -> BufferStatus:
        writer, self._writer = self._writer, None
        if writer is None or self._leave(writer, PATIENCE_S):
            raise Stuck(f"the writer did not end well:\n{self._last_words()}")
        found = read(self.directory)
        self._screen.show(found.lanes[0])
        return found

    def _leave(self, writer: subprocess.Popen[bytes], seconds: float) -> int:
        if writer.stdin is not None:
            writer.stdin.close()
        try:
            return writer.wait(seconds)
        except subprocess.TimeoutExpired:
            writer.kill()
            return writer.wait()

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:].strip() or "(it said nothing)"

    def _read_ledger(self) -> list[Note]:
        # A line that a kill has cut off was not acknowledged.
        lines = [line.split() for line in self._ledger.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [Note(message, float(took)) for message, took in lines]

    # ---- what the directory tells

    def _until(self, state: str, enough: Callable[[LaneStatus], bool]) -> LaneStatus:
        """Show the buffer until it is in that state, and far enough."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            lane = self._look()
            if lane is not None and lane.state == state and enough(lane):
                self._screen.end_step()
                return lane
            if self._writer is not None and self._writer.poll() is not None:
                raise Stuck(f"the writer ended by itself:\n{self._last_words()}")
            if time.monotonic() > deadline:
                seen = f"{self._seen.state}: {self._seen.state_reason}" if self._seen else "no buffer"
                raise Stuck(f"the buffer was not {state} within {PATIENCE_S:g} s; the last that was seen is {seen}")
            time.sleep(_LOOK_S)  # a directory has no event to await

    def _look(self) -> LaneStatus | None:
        try:
            lanes = read(self.directory).lanes
        except DirectoryError:
            # The writer has not made it yet.
            return None
        if not lanes:
            return None
        lane = self._seen = lanes[0]
        if not self._states or self._states[-1] != lane.state:
            self._states.append(lane.state)
        self._screen.show(lane)
        return lane
