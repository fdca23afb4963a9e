"""A full disk of each kind, under each mode and policy.

Promises, for each situation: the application sees what its policy says and no other exception; what was accepted before
is delivered, also while there is no room; when there is room again, messages are accepted within five seconds.

Where space runs out: ``reserving`` the segments (a device filled to its last byte before anything is on disk),
``rolling`` from one to the next while a backlog grows, ``min_free`` (others have filled the device up to what is kept
free), ``narration`` (only status, events, history and lock texts are refused), ``positions`` (only head and seek),
``dead-letters``, ``opening`` and ``closing``. All but narration and positions happen on a real device.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, Undelivered
from mbframework.errors import MessageBufferError
from mbframework.files import Files
from mbframework.spool import layout
from tests.torture import device
from tests.torture.application import PATIENCE_S, RECOVERY_S, Application, Outcome
from tests.torture.device import Device

SIZE = 12 << 20
#: The defaults but for sizes that fit the device, so that waits are those that users have.
OPTIONS: dict[str, Any] = {"segment_size": "256KiB", "total_size": "64MiB", "min_free": 0, "catch_up": "full"}
#: Mode and policy; the modes that keep nothing on disk know none.
WAYS = [(mode, policy) for mode in ("buffer", "always") for policy in ("prune", "block", "reject")]
MEMORY_WAYS = [("block", "prune"), ("raise", "prune")]
REFUSALS = {"prune": {"BufferFull"}, "block": set[str](), "reject": {"BufferFull"}}
_WRITE_S = 0.8
_NARRATION = ("status.", "events.", "history.", "writer.lock", "sender.lock")
_POSITIONS = (layout.HEAD_FILE, layout.SEEK_FILE)


class Refusing(Files):
    """Has no room for some files: those of which the name begins so."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.refused = 0
        self._paths: dict[int, str] = {}

    def _ask(self, path: str) -> None:
        if self.names and os.path.basename(path).startswith(self.names):
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        fd = super().open(path, create=create, exclusive=exclusive, write=write)
        self._paths[fd] = path
        return fd

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        self._ask(self._paths.get(fd, ""))
        super().pwrite(fd, data, offset)

    def datasync(self, fd: int) -> None:
        self._ask(self._paths.get(fd, ""))
        super().datasync(fd)

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        self._ask(path)
        super().replace(path, data, mode)


class Stage:
    """A device, a broker and a program on it."""

    def __init__(self, name: str, place: Device, files: Files | None = None) -> None:
        self.place = place
        self.broker = FakeBroker()
        self.outcome = Outcome(name, str(place))
        self.directory = place.path / "outbox"
        self._files = files or place.files

    def open(self, **options: Any) -> MessageBuffer:
        """The buffer."""
        files = self._files

        class OnDevice(MessageBuffer):
            @staticmethod
            def _make_files() -> Files:
                return files

        return OnDevice(self.directory, FakeProvider(self.broker), **OPTIONS | options)

    def program(self, buffer: MessageBuffer) -> Application:
        """Begin to write."""
        made = Application(buffer, self.broker, self.outcome)
        made.start()
        return made

    def answer(self, buffer: MessageBuffer) -> None:
        """The broker is back. How long the buffer waits before it looks is another matter than its disk."""
        self.broker.up()
        buffer.retry_now()

    def finish(self, program: Application, policy: str, allowed: set[str] | None = None) -> Outcome:
        """All is well again: deliver the rest, close, and judge. ``allowed``: other refusals than the policy's."""
        self.answer(program.buffer)
        program.end()
        try:
            program.buffer.flush(PATIENCE_S)
            program.buffer.close()
        except MessageBufferError as error:
            program.breach(f"at the end: {error!r}")
        program.judge(program.buffer.status(), allowed or REFUSALS[policy])
        return self.outcome


def _follows(program: Application, policy: str, within: float = PATIENCE_S) -> None:
    """Until the policy shows: something was pruned, a write waits, or is refused."""
    shows: dict[str, Callable[[], object]] = {
        "prune": lambda: program.buffer.status().pruned or program.refused,
        "block": program.waits,
        "reject": lambda: program.refused,
    }
    program.until(shows[policy], f"the policy {policy!r}", within)
    program.write_for(_WRITE_S)


def reserving(stage: Stage, mode: str, policy: str) -> Outcome:
    """Nothing is on disk yet, and nothing more fits."""
    program = stage.program(stage.open(mode=mode, on_full=policy, channel_messages=500))
    program.write_for(0.3)
    stage.broker.down()
    stage.place.fill()
    _follows(program, policy)
    program.recover(stage.place.free)
    return stage.finish(program, policy)


def rolling(stage: Stage, mode: str, policy: str) -> Outcome:
    """A backlog grows until the device is full; it is delivered while that is so."""
    program = stage.program(stage.open(mode=mode, on_full=policy, channel_messages=500))
    stage.broker.down()
    program.write_for(0.5)
    stage.place.fill(spare=1 << 20)
    _follows(program, policy)
    stage.place.fill()
    program.write_for(_WRITE_S)
    stage.answer(program.buffer)
    program.delivers()
    stage.broker.down()
    stage.place.fill()
    _follows(program, policy)
    program.recover(stage.place.free)
    return stage.finish(program, policy)


def min_free(stage: Stage, mode: str, policy: str) -> Outcome:
    """Others take what the device is to keep free."""
    program = stage.program(stage.open(mode=mode, on_full=policy, channel_messages=500, min_free="4MiB"))
    stage.broker.down()
    program.write_for(0.5)
    stage.place.fill(spare=3 << 20)
    _follows(program, policy)
    program.recover(stage.place.free)
    return stage.finish(program, policy)


def _refused(names: tuple[str, ...], stage: Stage, mode: str, policy: str) -> Outcome:
    """Only some files get no room: the application sees nothing of it, and messages are delivered."""
    files = Refusing()
    stage = Stage(stage.outcome.name, stage.place, files)
    program = stage.program(stage.open(mode=mode, on_full=policy))
    program.write_for(0.3)
    files.names = names
    program.write_for(1.5)
    if mode in ("buffer", "always"):
        stage.broker.down()
        program.write_for(_WRITE_S)
        stage.answer(program.buffer)
    program.delivers()
    if not program.accepts(RECOVERY_S):
        program.breach("nothing is accepted although segments have room")
    if not files.refused:
        program.breach("nothing was refused: the situation did not come about")
    program.recover(lambda: setattr(files, "names", ()))
    stage.outcome.notes.append(f"{files.refused} calls refused")
    outcome = stage.finish(program, policy)
    if program.refused:
        program.breach(f"the application saw {dict(program.refused)}: {program.refusal}")
    return outcome


def dead_letters(stage: Stage, mode: str, policy: str) -> Outcome:
    """A message is rejected for good, and there is no room to set it aside: nothing overtakes it, nothing is lost."""
    program = stage.program(stage.open(mode=mode, on_full=policy, channel_messages=500))
    program.write_for(0.3)
    stage.place.fill()
    stage.broker.reject_when(lambda message: "bad" if (message.value or b"").split(b" ")[0].endswith(b"99") else None)
    program.until(lambda: "dead letters" in program.buffer.status().state_reason, "a blocked lane")
    program.write_for(_WRITE_S)
    stage.place.free()
    target = program.accepted
    seconds = program.until(
        lambda: program.buffer.status().dead and program._gone() >= target, "the delivery of the rest", RECOVERY_S
    )
    stage.outcome.recovered_s = seconds
    # Mode "raise" says so at once, whatever keeps the lane from going on.
    return stage.finish(program, policy, {"ProviderUnavailable"} if mode == "raise" else None)


def opening(stage: Stage, mode: str, policy: str) -> Outcome:
    """A program starts on a full device with a backlog: it opens, and delivers."""
    program = stage.program(stage.open(mode=mode, on_full=policy))
    stage.broker.down()
    program.write_for(1.0)
    program.end()
    program.buffer.close(0.1)
    waiting = program.buffer.status().resident_messages
    before = program.accepted
    stage.place.fill()
    try:
        buffer = stage.open(mode=mode, on_full=policy)
    except MessageBufferError as error:
        stage.outcome.breaches.append(f"it does not open: {error}")
        stage.place.free()
        buffer = stage.open(mode=mode, on_full=policy)
    again = Application(buffer, stage.broker, stage.outcome)
    again.accepted = before
    again.start()
    again.write_for(_WRITE_S)
    stage.answer(buffer)
    again.until(lambda: buffer.status().delivered + buffer.status().pruned >= waiting, "the backlog", RECOVERY_S)
    again.recover(stage.place.free)
    return stage.finish(again, policy)


def closing(stage: Stage, mode: str, policy: str) -> Outcome:
    """A program ends on a full device with messages in memory: they are kept, or handed back."""
    program = stage.program(stage.open(mode=mode, on_full=policy, channel_messages=500))
    program.write_for(0.3)
    stage.place.fill()
    stage.broker.down()
    program.write_for(_WRITE_S)
    returned = 0
    # A write that waits for room returns when the buffer is closed.
    try:
        program.buffer.close(0.1)
    except Undelivered as undelivered:
        returned = len(undelivered.messages)
    program.end()
    if program.refused.pop("BufferClosed", 0) == 0 and policy != "block":
        program.breach("a closed buffer took messages")
    stage.place.free()
    stage.broker.up()
    with stage.open(mode=mode, on_full=policy) as again:
        again.flush(PATIENCE_S)
        last = again.status()
    if last.returned != returned:
        program.breach(f"{returned} were handed back, and the accounts say {last.returned}")
    stage.outcome.notes.append(f"{returned} handed back")
    outcome = stage.outcome
    outcome.delivered, outcome.pruned = last.delivered, last.pruned
    if (last.accepted, last.lost, last.balanced) != (program.accepted, returned, True):
        program.breach(f"accepted {program.accepted}; the accounts say {last}")
    return outcome


Situation = Callable[[Stage, str, str], Outcome]
KINDS: dict[str, tuple[Situation, list[tuple[str, str]]]] = {
    "reserving": (reserving, WAYS),
    "rolling": (rolling, WAYS),
    "min-free": (min_free, WAYS),
    "narration": (partial(_refused, _NARRATION), WAYS + MEMORY_WAYS),
    "positions": (partial(_refused, _POSITIONS), WAYS + MEMORY_WAYS),
    "dead-letters": (dead_letters, WAYS + MEMORY_WAYS),
    "opening": (opening, WAYS),
    "closing": (closing, WAYS),
}
#: Every situation by its name.
NAMES = [f"full {kind} {mode} {policy}" for kind, (_, ways) in KINDS.items() for mode, policy in ways]


@contextmanager
def staged(name: str, folder: Path) -> Iterator[Stage]:
    """The device of a situation, a real one where that can be had."""
    mount = folder / "device"
    mount.mkdir()
    if why := device.obstacle():
        yield Stage(name, device.Pretended(mount, SIZE, why))
        return
    with device.tmpfs(mount, SIZE) as place:
        yield Stage(name, place)


def run(name: str, folder: Path) -> Outcome:
    """One situation, in an empty folder."""
    _, kind, mode, policy = name.split()
    with staged(name, folder) as stage:
        return KINDS[kind][0](stage, mode, policy)
