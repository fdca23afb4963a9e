"""What becomes of a program when a part under it fails: disk, descriptors, clock, threads, neighbours.

``python -m tests.torture.parts [WORD …]`` takes every situation whose name has all these words, each in a process of
its own, and prints a line for each, then a verdict; the exit status is 1 after any breach. ``--list`` names them.

Devices are real where mounting is allowed: a small tmpfs that is filled to its last byte, an ext4 in a file that finds
an error and turns read-only. Elsewhere the file-system seam stands in for the full ones, the lines say so, and the
situations that need a mount are left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from mbframework.files import Files
from mbframework.status import read as read_status
from tests.engine.rig import FAST, numbers, padded
from tests.torture import device, full_disk
from tests.torture.application import PATIENCE_S, RECOVERY_S, Application, Outcome

_ROOT = Path(__file__).parents[2]
_DAY = 86_400
_LONGEST_S = 120.0
_OPTIONS = full_disk.OPTIONS


def _close(program: Application) -> None:
    program.end()
    program.buffer.flush(PATIENCE_S)
    program.buffer.close()


# ---- a device that finds an error, and turns read-only


def read_only(name: str, folder: Path) -> Outcome:
    """Nothing more can be written, to open files neither; after a check of the file system all is well again."""
    mode = name.rsplit(maxsplit=1)[-1]
    mount = folder / "device"
    mount.mkdir()
    with device.ext4(mount, folder / "image", 48 << 20) as place:
        outcome, broker = Outcome(name, str(place)), FakeBroker()
        buffer = MessageBuffer(mount / "outbox", FakeProvider(broker), mode=mode, **_OPTIONS)
        program = Application(buffer, broker, outcome)
        program.start()
        program.write_for(0.5)
        broker.down()
        program.write_for(0.7)
        kept = program.accepted
        buffer.sync()
        place.turn_read_only()
        program.until(lambda: program.refused["DiskFailed"], "DISK-ERROR", RECOVERY_S)
        program.write_for(1.0)
        if buffer.status().pruned:
            program.breach("a broken device is no reason to prune")
        program.end()
        if set(program.refused) != {"DiskFailed"}:
            program.breach(f"the application saw {dict(program.refused)}: {program.refusal}")
        broker.up()
        buffer.retry_now()
        # What can be read goes out while nothing can be written.
        program.until(lambda: broker.count >= kept, f"{kept} messages from a read-only device", 2 * RECOVERY_S)
        buffer.close(1.0)
        begun = time.monotonic()
        place.mend()
        with MessageBuffer(mount / "outbox", FakeProvider(broker), mode=mode, **_OPTIONS) as again:
            again.write("topic", padded(program.accepted, 100))
            again.flush(PATIENCE_S)
            outcome.recovered_s = time.monotonic() - begun
            last = again.status()
    first = list(dict.fromkeys(numbers(broker.messages)))
    outcome.delivered = last.delivered
    outcome.notes.append(f"{kept} synced, {broker.count} arrived, {len(first)} different")
    # As with a power loss: what was synced is there. The seek could not be stored, so that repeats are right.
    if first != sorted(first):
        program.breach("out of order")
    if missing := {*range(kept), program.accepted} - set(first):
        program.breach(f"{len(missing)} messages are missing, the first {min(missing)}")
    if not kept < last.accepted <= program.accepted + 1 or not last.balanced or last.pruned:
        program.breach(f"accepted {program.accepted + 1}, {kept} of them synced: {last}")
    return outcome


# ---- no descriptors


def descriptors(name: str, folder: Path) -> Outcome:
    """The program has opened all the files that it may, in the middle of a backlog."""
    outcome, broker = Outcome(name), FakeBroker()
    buffer = MessageBuffer(folder / "outbox", FakeProvider(broker), mode=name.rsplit(maxsplit=1)[-1], **_OPTIONS)
    program = Application(buffer, broker, outcome)
    program.start()
    broker.down()
    program.write_for(1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        program.write_for(1.0)
        broker.up()
        program.write_for(1.0)
        broker.down()
    finally:
        program.recover(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    broker.up()
    buffer.retry_now()
    program.delivers()
    _close(program)
    program.judge(buffer.status(), {"DiskFailed", "BufferFull"})
    return outcome


# ---- clocks


class Stepped(Files):
    """A machine whose wall clock somebody sets."""

    def __init__(self) -> None:
        self.offset_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.offset_ns


def wall_clock(name: str, folder: Path) -> Outcome:
    """The wall clock is set, while the program runs and while it does not: nothing expires, nothing changes places."""
    outcome, broker, files = Outcome(name), FakeBroker(), Stepped()
    step = (-_DAY if name.rsplit(maxsplit=1)[-1] == "back" else _DAY) * 10**9

    class OnSteppedClock(MessageBuffer):
        @staticmethod
        def _make_files() -> Files:
            return files

    options = _OPTIONS | {"expire_after": 3600, "segment_age": 0.3, "mode": "always"}
    program = Application(OnSteppedClock(folder / "outbox", FakeProvider(broker), **options), broker, outcome)
    program.start()
    program.write_for(0.5)
    broker.down()
    program.write_for(0.5)
    files.offset_ns += step
    program.write_for(1.0)
    program.end()
    program.buffer.close(0.1)
    files.offset_ns += step
    again = Application(OnSteppedClock(folder / "outbox", FakeProvider(broker), **options), broker, outcome)
    again.accepted = program.accepted
    again.start()
    again.write_for(0.5)
    files.offset_ns -= 2 * step
    broker.up()
    again.buffer.retry_now()
    again.delivers()
    _close(again)
    again.judge(again.buffer.status(), set())
    return outcome


_LIFE = """
import sys, time
from mbframework import MessageBuffer
from tests.engine.rig import FAST
life, directory, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
url = f"sqlite:{out}" if life % 2 else None
with MessageBuffer(directory, url, mode="always", **FAST | {"close_timeout": 20}) as buffer:
    for number in range(500):
        buffer.write("t", f"{life:03}{number:05}")
    if life % 2:
        buffer.flush(20)
"""


def boot_clock(name: str, folder: Path) -> Outcome:
    """Successive programs see boot clocks that differ by days, as containers with time namespaces do."""
    outcome = Outcome(name)
    out = folder / "out.db"
    # A clock cannot begin below zero.
    back = -int(time.clock_gettime(time.CLOCK_BOOTTIME)) + 60
    offsets = [0, 10 * _DAY, 0, back, 5 * _DAY, back, 0, 0]
    for life, offset in enumerate(offsets):
        command = ["unshare", "--time", "--boottime", str(offset), "--fork"] if offset else []
        command += [sys.executable, "-c", _LIFE, str(life), str(folder / "outbox"), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT, timeout=60)
        if done.returncode:
            outcome.breaches.append(f"life {life} with an offset of {offset} s: {done.stderr[-500:]}")
            return outcome
    with sqlite3.connect(out) as store:
        arrived = [int(value) for (value,) in store.execute("SELECT value FROM messages ORDER BY rowid")]
    store.close()
    expected = [int(f"{life:03}{number:05}") for life in range(len(offsets)) for number in range(500)]
    if arrived != expected:
        outcome.breaches.append(f"{len(arrived)} of {len(expected)} arrived, in order: {arrived == sorted(arrived)}")
    (lane,) = read_status(folder / "outbox").lanes
    outcome.accepted, outcome.delivered = lane.accepted, lane.delivered
    if not lane.balanced or (lane.lost, lane.resident, lane.expired) != (0, 0, 0):
        outcome.breaches.append(f"the accounts: {lane}")
    return outcome


# ---- many


def threads(name: str, folder: Path) -> Outcome:
    """Two thousand threads write at once, through hand-overs in both directions."""
    count, each = 2000, 25
    outcome, broker = Outcome(name), FakeBroker()
    options = FAST | {"segment_size": "256KiB", "channel_messages": 2000}
    with MessageBuffer(folder / "outbox", FakeProvider(broker), **options) as buffer:
        gate, errors = threading.Event(), list[str]()

        def write(thread: int) -> None:
            gate.wait()
            try:
                for number in range(each):
                    buffer.write("topic", str(thread * each + number))
            except Exception as error:  # noqa: BLE001  (whatever it is: the application must not see it)
                errors.append(repr(error))

        writers = [threading.Thread(target=write, args=(thread,)) for thread in range(count)]
        for writer in writers:
            writer.start()
        gate.set()
        while any(writer.is_alive() for writer in writers):
            for act in (broker.down, broker.up):
                act()
                writers[-1].join(0.1)
        for writer in writers:
            writer.join()
        broker.up()
        buffer.flush(PATIENCE_S)
        last = buffer.status()
    arrived = numbers(broker.messages)
    outcome.accepted, outcome.delivered = last.accepted, last.delivered
    outcome.notes.append(f"{count:,} threads")
    outcome.breaches += errors[:3]
    if sorted(arrived) != list(range(count * each)) or last.delivered != count * each or not last.balanced:
        outcome.breaches.append(f"{len(arrived)} arrived, {len(set(arrived))} different, of {count * each}: {last}")
    places: dict[int, int] = {}
    for number in arrived:
        if number < places.get(number // each, -1):
            outcome.breaches.append(f"message {number % each} of thread {number // each} came after a later one")
        places[number // each] = number
    return outcome


_NEIGHBOUR = """
import sys
from mbframework import MessageBuffer
from tests.engine.rig import FAST
name, directory, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
options = FAST | {"close_timeout": 20, "segment_size": "64KiB", "lock_timeout": 0}
with MessageBuffer(directory, f"file://{out}/{{lane}}.jsonl", **options) as buffer:
    for number in range(1000):
        buffer.write("t", str(name * 1000 + number))
"""


def writers(name: str, folder: Path) -> Outcome:
    """Sixteen programs open the same directory at the same moment, and write."""
    count, outcome = 16, Outcome(name)
    command = [sys.executable, "-c", _NEIGHBOUR]
    programs = [
        subprocess.Popen([*command, str(n), str(folder / "outbox"), str(folder)], cwd=_ROOT, stderr=subprocess.PIPE)
        for n in range(count)
    ]
    for program in programs:
        said = program.communicate(timeout=_LONGEST_S)[1].decode()
        if program.returncode:
            outcome.breaches.append(said[-500:])
    lanes = read_status(folder / "outbox").lanes
    arrived: list[int] = []
    for file in folder.glob("*.jsonl"):
        values = [int(json.loads(line)["value"]) for line in file.read_text().splitlines()]
        # One program after another may have had a lane, each with its messages in order.
        places = [values.index(value) for value in values if value % 1000 == 0]
        if any(values[at : at + 1000] != list(range(values[at], values[at] + 1000)) for at in places):
            outcome.breaches.append(f"{file.name} is out of order")
        arrived += values
    outcome.accepted = sum(lane.accepted for lane in lanes)
    outcome.delivered = sum(lane.delivered for lane in lanes)
    outcome.notes.append(f"{count} programs, {len(lanes)} lanes")
    if sorted(arrived) != list(range(count * 1000)):
        outcome.breaches.append(f"{len(arrived)} arrived, {len(set(arrived))} different, of {count * 1000}")
    if not all(lane.balanced and not lane.lost and not lane.resident for lane in lanes):
        outcome.breaches.append(f"the accounts: {lanes}")
    return outcome


SITUATIONS: dict[str, Callable[[str, Path], Outcome]] = {
    **dict.fromkeys(full_disk.NAMES, full_disk.run),
    "read-only buffer": read_only,
    "read-only always": read_only,
    "descriptors buffer": descriptors,
    "descriptors always": descriptors,
    "wall clock set back": wall_clock,
    "wall clock set forward": wall_clock,
    "boot clock": boot_clock,
    "threads": threads,
    "writers": writers,
}


def _apart(name: str) -> tuple[bool, str]:
    """Run a situation in a process of its own, since what it does may end that; whether it went well, and its line."""
    command = [sys.executable, "-m", "tests.torture.parts", "--here", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S, cwd=_ROOT)
    except subprocess.TimeoutExpired:
        return False, f"BREACH {name}: it did not end within {_LONGEST_S:g} s"
    if done.returncode not in (0, 1) or not done.stdout:
        return False, f"BREACH {name}: it ended with {done.returncode}: {done.stderr[-2000:]}"
    return not done.returncode, done.stdout.splitlines()[-1]


def _here(name: str) -> int:
    with tempfile.TemporaryDirectory(prefix="mbframework-torture-") as folder:
        outcome = SITUATIONS[name](name, Path(folder))
    print(outcome.line())
    return int(bool(outcome.breaches))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.parts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("words", nargs="*", help="take the situations whose names have all of these words")
    parser.add_argument("--list", action="store_true", help="name the situations, and do nothing")
    parser.add_argument("--here", metavar="NAME", help="this one, in this process")
    given = parser.parse_args(arguments)
    if given.here:
        return _here(given.here)
    names = [name for name in SITUATIONS if {*" ".join(given.words).split()} <= {*name.split()}]
    if not names:
        parser.error(f"no situation has all of the words {' '.join(given.words)!r}; --list names them")
    if why := device.obstacle():
        print(f"left out: the situations read-only, since {why}", file=sys.stderr)
        names = [name for name in names if SITUATIONS[name] is not read_only]
    if given.list:
        print("\n".join(names))
        return 0
    failed, begun = 0, time.monotonic()
    for name in names:
        well, line = _apart(name)
        failed += not well
        print(line, flush=True)
    verdict = "BREACH" if failed else "PASS"
    print(f"{verdict}: {len(names)} situations in {time.monotonic() - begun:.0f} s, {failed} with breaches")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
