"""Lock files: who holds one, how it comes free, and what the text inside may not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mbframework.files import Files
from mbframework.lockfile import LockFile, describe, holder, holder_lives, is_held

HOLD = (
    "import sys\n"
    "from mbframework.files import Files\n"
    "from mbframework.lockfile import LockFile\n"
    "lock = LockFile.take(Files(), sys.argv[1], 0)\n"
    "print(lock is not None, flush=True)\n"
    "sys.stdin.read()\n"
)
HOSTILE = [
    b"",
    b"\0" * 100,
    b"\xff\xfe",
    b"[" * 4096,
    b"null",
    b'"text"',
    b'{"pid": ' + b"9" * 4000 + b"}",
    b'{"pid": true}',
    b'{"pid": 1e999}',
    b'{"pid": [], "host": {}}',
    b'{"pid": 1, "host": "' + b"h" * (1 << 20) + b'"}',
]


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=-1, stdout=-1, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "True\n"
            yield process
        finally:
            process.kill()


def taken(path: Path, timeout: float = 0.0) -> LockFile:
    lock = LockFile.take(Files(), str(path), timeout)
    assert lock is not None
    return lock


def test_one_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / "writer.lock"
    with held_elsewhere(path) as process:
        inode = path.stat().st_ino
        # Plainly alive: nobody waits for it.
        assert LockFile.take(files, str(path), 3600) is None
        assert is_held(files, str(path))
        facts = holder(files, str(path))
        assert facts["pid"] == process.pid
        assert holder_lives(files, facts)
        assert describe(facts).startswith(f"process {process.pid} on ")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not holder_lives(files, facts)
        assert not is_held(files, str(path))
        lock = taken(path)
        assert holder(files, str(path))["pid"] == os.getpid()
        lock.release()
        lock.release()
        assert path.stat().st_ino == inode, "a lock file is never removed"
        assert holder(files, str(path)) == {}


def test_one_object_holds_it_within_a_process(tmp_path: Path) -> None:
    first = taken(tmp_path / "lock")
    assert LockFile.take(Files(), str(tmp_path / "lock"), 3600) is None
    first.release()
    taken(tmp_path / "lock").release()


def test_a_probe_does_not_turn_an_opener_away(tmp_path: Path) -> None:
    """The text is that of a killed process whose number this one has been given, as in a container."""
    files, path = Files(), tmp_path / "lock"
    stale = {"host": "h", "boot": files.boot_id().hex(), "pid": os.getpid(), "since": 1.0}
    for text in (b"", json.dumps(stale).encode()):
        path.write_bytes(text)
        probe = files.open(str(path))
        assert files.lock(probe)
        asked = threading.Event()

        class Asking(Files):
            def lock(self, fd: int) -> bool:
                free = super().lock(fd)
                asked.set()  # noqa: B023
                return free

        def give_back(probe: int = probe) -> None:
            asked.wait(10)  # noqa: B023
            files.close(probe)

        thread = threading.Thread(target=give_back)
        thread.start()
        lock = LockFile.take(Asking(), str(path), 10)
        thread.join()
        assert lock is not None
        lock.release()


def test_held_for_longer_than_the_timeout(tmp_path: Path) -> None:
    files = Files()
    other = files.open(str(tmp_path / "lock"), create=True)
    assert files.lock(other)
    assert LockFile.take(files, str(tmp_path / "lock"), 0.05) is None
    files.close(other)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not open the file")
def test_no_permission_is_not_a_held_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o600)
    program = (
        "import os, sys\n"
        "from mbframework.files import Files\n"
        "from mbframework.lockfile import LockFile\n"
        "os.chdir(os.path.dirname(sys.argv[1]))\n"
        "os.setgid(4002); os.setuid(4002)\n"
        "try: print(LockFile.take(Files(), 'lock', 0))\n"
        "except PermissionError as error: print('refused', error.errno)\n"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "refused 13\n"


def test_a_missing_directory_or_a_link_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing/lock", tmp_path / "link"):
        with pytest.raises(OSError, match=str(path)):
            LockFile.take(Files(), str(path), 3600)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_changes_nothing(tmp_path: Path, text: bytes) -> None:
    files, path = Files(), tmp_path / "lock"
    path.write_bytes(text)
    facts = holder(files, str(path))
    assert len(describe(facts)) < 200
    # Even where it knows the boot.
    assert holder_lives(files, facts | {"boot": files.boot_id().hex()}) in (False, facts.get("pid") == 1)
    other = files.open(str(path))
    assert files.lock(other)
    assert LockFile.take(files, str(path), 0.0) is None
    files.close(other)
    lock = taken(path)
    assert holder(files, str(path))["pid"] == os.getpid()
    lock.release()


def test_a_lock_whose_file_was_swapped_is_taken_again(tmp_path: Path) -> None:
    """A person removed the file between the opening and the locking: two would hold what they take for the same."""
    path = tmp_path / "lock"

    class Swapped(Files):
        swapped = False

        def lock(self, fd: int) -> bool:
            if not self.swapped:
                self.swapped = True
                path.unlink()
                path.touch()
            return super().lock(fd)

    lock = LockFile.take(Swapped(), str(path), 5)
    assert lock is not None
    assert LockFile.take(Files(), str(path), 0.0) is None
    lock.release()
