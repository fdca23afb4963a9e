"""In which state a lane is, as it is seen from outside: from what its processes say, and from whether they live.

Promises
--------
- The two halves of a lane, who writes and who sends, are judged each by itself: by the age of what it said last, and by
  its lock. What a process said counts while it lives, and for so many seconds as :func:`patience` says.
- A lock is asked for only where what was said does not tell that its holder lives.

Any thread; any process that may read the directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mbframework import narration
from mbframework.files import Files
from mbframework.lockfile import is_held
from mbframework.narration import age, clock_jump, instant_of
from mbframework.printable import shell_word
from mbframework.spool import layout

#: Seconds without a heartbeat after which what a process last said is stale, where it does not write more seldom.
STALE_AFTER = 3.0
#: Those that a process tells of itself.
TOLD_STATES = ("live", "buffering", "draining", "paused", "blocked", "disk-error")
#: Those in which messages of the backlog go out.
SENDING_STATES = ("live", "draining")
STATES = (*TOLD_STATES, "stale", "dead")
#: How the half that sends is. "silent": its process has the lock, and gives no sign of life; "killed": the process that
#: sent is gone, and did not close the lane; "none": no process has it to send.
Sending = Literal["alive", "silent", "killed", "none"]


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a lane: what its process said, in ``file``, what is wrong with that, and how many seconds ago it was
    said; whether the process lives and ``speaks``, and whether the half is ``held`` at all."""

    file: str
    told: dict[str, Any]
    trouble: str
    age: float | None
    speaks: bool
    held: bool

    @property
    def silent(self) -> bool:
        """Whether the process that has it gives no sign of life. One that has yet to say its first word is not."""
        return self.held and not self.speaks and self.age is not None and not self.told.get("closed")


@dataclass(frozen=True, slots=True)
class State:
    """The state, since when (seconds since 1970), and why; ``clock_jump_s``: by how many seconds the wall clock was set
    since then, where its process told when that was."""

    name: str
    since: float | None
    reason: str = ""
    clock_jump_s: float = 0.0


def patience(told: Mapping[str, Any]) -> float:
    """Seconds without a heartbeat after which what a process said last is stale."""
    interval = told.get("interval", 0.0)
    return max(STALE_AFTER, 3.0 * interval) if isinstance(interval, int | float) else STALE_AFTER


def halves_of(files: Files, path: str) -> tuple[Half, Half]:
    """Who writes to a lane, and who sends it. ``path``: the lane's directory."""
    return _half(files, path, layout.WRITER_STATUS_FILE, layout.WRITER_LOCK_FILE), sender_of(files, path)


def sender_of(files: Files, path: str) -> Half:
    """Who sends a lane. ``path``: the lane's directory."""
    return _half(files, path, layout.SENDER_STATUS_FILE, layout.SENDER_LOCK_FILE)


def _half(files: Files, path: str, file: str, lock: str) -> Half:
    told, trouble = narration.read(files, os.path.join(path, file))
    ago, pid = age(files, told), told.get("pid")
    fresh = ago is not None and ago <= patience(told) and not told.get("closed")
    # A process of another container cannot be seen, but its lock can.
    held = (fresh and pid is not None and files.process_exists(pid)) or is_held(files, os.path.join(path, lock))
    return Half(file, told, trouble, ago, fresh and held, held)


def sending_of(halves: tuple[Half, Half]) -> Sending:
    """How the half that sends is."""
    writer, sender = halves
    if writer.speaks and writer.told.get("sends"):
        # One process is both.
        return "alive"
    if sender.held:
        return "silent" if sender.silent else "alive"
    return "killed" if sender.told and not sender.told.get("closed") else "none"


def silence(halves: tuple[Half, Half]) -> float | None:
    """Seconds since the last sign of life of the process that has been silent longest, of those that have the lane;
    where none has it, since the last one of all."""
    present = [half.age for half in halves if half.age is not None and (half.speaks or half.silent)]
    known = [half.age for half in halves if half.age is not None]
    return max(present) if present else min(known, default=None)


def state_of(files: Files, path: str, halves: tuple[Half, Half] | None = None) -> State:
    """The state of a lane. ``halves``: where they are known."""
    writer, sender = halves or halves_of(files, path)
    of_writer, of_sender = _word(files, writer), _word(files, sender)
    sends = sender.speaks and of_sender.name in TOLD_STATES
    if writer.silent:
        stale = _stale(files, of_writer.since, writer=writer, sender=sender)
        # What keeps the other half from sending goes on being true.
        kept = f"the sender is {of_sender.name}: {of_sender.reason}; " if sends and of_sender.reason else ""
        return replace(stale, reason=kept + stale.reason)
    if not writer.speaks or of_writer.name not in TOLD_STATES:
        if sends:
            return of_sender
        if sender.silent:
            return _stale(files, of_sender.since, sender=sender)
        return State("stale" if writer.held or sender.held else "dead", of_writer.since)
    if of_writer.name != "buffering" or writer.told.get("sends"):
        return of_writer
    # It only writes: how that goes on is the sender's to say.
    if sends:
        return of_sender
    if sender.silent:
        return _stale(files, of_writer.since, sender=sender)
    last = instant_of(files, sender.told, sender.told, "heartbeat")
    since = max(filter(None, (of_writer.since, last)), default=None)
    drain = f"mb drain {shell_word(os.path.dirname(path))}"
    match sending_of((writer, sender)):
        case "killed":
            who = _process("sender", sender)
            return State("buffering", since, f"nobody sends: {who} has died; next: {drain}")
        case "none":
            return State("buffering", since, f"nobody sends: this process only writes; next: {drain}")
    return of_writer


def _stale(files: Files, since: float | None, **halves: Half) -> State:
    """The state where those of the halves, by name, that are silent make it stale: ``since`` is when it came into the
    state before, and it is stale since the last sign of life of the one that fell silent first."""
    silent = {name: half for name, half in halves.items() if half.silent}
    beats = [instant_of(files, half.told, half.told, "heartbeat") for half in silent.values()]
    last = min(filter(None, beats), default=None)
    # One process that is both halves is named once.
    named = {half.told.get("pid"): _process(name, half) for name, half in reversed(silent.items())}
    who = " and ".join(reversed(named.values()))
    return State(
        "stale",
        max(filter(None, (since, last)), default=None),
        f"{who} {'have' if len(named) > 1 else 'has'} given no sign of life",
    )


def _process(name: str, half: Half) -> str:
    pid = half.told.get("pid")
    return f"the {name}" if pid is None else f"the {name} (process {pid})"


def _word(files: Files, half: Half) -> State:
    told = half.told
    then, since = told.get("since"), instant_of(files, told, told, "since")
    jump = clock_jump(then, since) if then and since else 0.0
    return State(told.get("state", ""), since, told.get("reason", ""), jump)
