"""The buffer's directory: what is refused and left as it was, what is made, who sees a copy."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, read_status
from mbframework.config import Config
from mbframework.directory import Directory, prepare
from mbframework.errors import ConfigurationError, DirectoryError, NewerFormat, NotABuffer, UnsafeDirectory
from mbframework.files import Files
from mbframework.opening import open_engine
from tests.engine.rig import FAST, at_rest, in_state, numbers
from tests.faulty_files import FaultyFiles, Killed

CONFIG = Config()


def made(path: Path, config: Config = CONFIG) -> Directory:
    return prepare(Files(), str(path), config)


def content(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below ``path``: modes, inodes, bytes."""
    return {
        str(each): (each.lstat().st_mode, each.lstat().st_ino, each.read_bytes() if each.is_file() else b"")
        for each in (path, *sorted(path.rglob("*")))
    }


def test_a_new_and_an_empty_directory_become_a_buffer(tmp_path: Path) -> None:
    (tmp_path / "empty/lost+found").mkdir(parents=True)
    for name in ("new", "empty"):
        path = tmp_path / name
        first = made(path)
        facts = json.loads((path / "buffer.json").read_text())
        assert (facts["id"], facts["format"], len(first.buffer_id)) == (first.buffer_id.hex(), 1, 16)
        assert facts["inodes"] == [path.stat().st_ino, (path / "buffer.json").stat().st_ino]
        assert not first.barred
        before = content(path)
        assert made(path) == first
        assert content(path) == before
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o700


def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    buffer = tmp_path / "buffer"
    made(buffer)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/letters.txt").write_text("dear reader")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(buffer)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o770)
    before = content(tmp_path)
    for name, kind, words in (
        ("foreign", NotABuffer, "letters.txt"),
        ("file", NotABuffer, "not a directory"),
        ("file/below", DirectoryError, "cannot be made"),
        ("link", UnsafeDirectory, "symbolic link"),
        ("dangling", UnsafeDirectory, "symbolic link"),
        ("missing/buffer", DirectoryError, "make the parent directory first"),
        ("open", UnsafeDirectory, "chmod 0755"),
        ("group", UnsafeDirectory, "dir_mode"),
    ):
        with pytest.raises(kind, match=words):
            made(tmp_path / name)
        assert content(tmp_path) == before, name
    assert made(tmp_path / "group", CONFIG.replace(dir_mode=0o2770)).barred == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.mkdir()
    os.chown(path, 4001, 4001)
    made_by = (
        "import os, sys\n"
        "from mbframework.config import Config\n"
        "from mbframework.directory import prepare\n"
        "from mbframework.errors import DirectoryError\n"
        "from mbframework.files import Files\n"
        "descriptor = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.setgid(4002); os.setuid(4002)\n"
        "class Seen(Files):\n"
        "    def stat(self, path): return os.fstat(descriptor)\n"
        "    def file_system(self, path): return 'ext4'\n"
        "os.path.lexists = lambda path: True\n"
        "try: prepare(Seen(), sys.argv[1], Config())\n"
        "except DirectoryError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", made_by, path], capture_output=True, text=True, check=True)
    assert done.stdout == f"UnsafeDirectory {path} belongs to user 4001, and this is user 4002\n"
    assert os.listdir(path) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[1, 2]",
        b"[" * 5000,
        b'{"id": "ab", "format": 1}',
        b'{"id": 7, "format": 1}',
        b'{"id": "00112233445566778899aabbccddeeff"}',
        b'{"id": "00112233445566778899aabbccddeeff", "format": 1e999}',
        b'{"id": "00112233445566778899aabbccddeeff", "format": 0}',
        b'{"id": "00112233445566778899aabbccddeeff", "format": ' + b"9" * 5000 + b"}",
    ],
    ids=range(11),
)
def test_garbage_in_buffer_json_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "buffer.json").write_bytes(text)
    tmp_path.chmod(0o700)
    before = content(tmp_path)
    with pytest.raises(NotABuffer, match=r"buffer\.json is not the file of a buffer"):
        made(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("identity", [None, "adopt"])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a directory", Path.mkdir),
        ("a symbolic link", lambda path: path.symlink_to("/etc/hostname")),
        ("a symbolic link", lambda path: path.symlink_to("/nowhere")),
        ("a named pipe", os.mkfifo),
        ("a device", lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))),
    ],
)
def test_something_else_of_that_name_is_named_and_not_waited_for(
    tmp_path: Path, kind: str, make: Callable[[Path], object], identity: Any
) -> None:
    path = tmp_path / "b"
    path.mkdir(mode=0o700)
    try:
        make(path / "buffer.json")
    except PermissionError:
        pytest.skip("only root can make a device")
    for look in (lambda: read_status(path), lambda: made(path, CONFIG.replace(identity=identity))):
        with pytest.raises(
            DirectoryError, match=rf"b/buffer\.json cannot be read: {kind}, .* put the file in its place"
        ):
            look()


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a directory", Path.mkdir),
        ("a named pipe", os.mkfifo),
        ("a socket", lambda path: os.mknod(path, stat.S_IFSOCK)),
    ],
)
@pytest.mark.parametrize(
    "name", ["head", "seek", "runs", "writer.lock", "sender.lock", "status.writer.json", "events.sender.jsonl"]
)
def test_something_else_in_the_place_of_a_file_of_a_lane_is_named_and_not_waited_for(
    tmp_path: Path, name: str, kind: str, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "b"
    with MessageBuffer(path, None, **FAST) as buffer:
        buffer.write("t", b"1")
    (path / "main" / name).unlink(missing_ok=True)
    make(path / "main" / name)
    before = content(path)
    for source in (None, FakeProvider()):
        with pytest.raises(DirectoryError, match=rf"b/main cannot be used: {kind}, .* as '{name}'; move it away"):
            MessageBuffer(path, source, **FAST)
    assert content(path) == before


def test_a_newer_format_is_refused_whatever_else_changed_in_it(tmp_path: Path) -> None:
    (tmp_path / "buffer.json").write_text('{"format": 2, "id": "of another kind"}')
    tmp_path.chmod(0o700)
    before = content(tmp_path)
    with pytest.raises(NewerFormat, match="format 2"):
        made(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("identity", ["adopt", "new-identity"])
def test_a_copy_takes_writes_and_sends_nothing_until_told(tmp_path: Path, identity: str) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.write_many("t", map(str, range(3)))
    subprocess.run(["cp", "-a", tmp_path / "b", tmp_path / "copy"], check=True)
    there = FakeProvider()
    with MessageBuffer(tmp_path / "copy", there, **FAST) as buffer:
        buffer.write("t", "3")
        in_state(buffer, "blocked")
        assert buffer.status().resident == 4
    assert there.count == 0
    with MessageBuffer(tmp_path / "copy", there, identity=identity, **FAST) as buffer:
        buffer.flush(60)
        at_rest(buffer)
    assert numbers(there.messages) == [0, 1, 2, 3]
    # From now on it is at home there, and the original still is where it was.
    assert made(tmp_path / "copy").barred == made(tmp_path / "b").barred == ""
    same = made(tmp_path / "copy").buffer_id == made(tmp_path / "b").buffer_id
    assert same == (identity == "adopt")


@pytest.mark.parametrize("change", ["create", "adopt", "new-identity"])
def test_killed_at_any_call_the_next_opening_goes_on(tmp_path: Path, change: Any) -> None:
    """Also where the next process has the same number, as in a container."""
    config = CONFIG if change == "create" else CONFIG.replace(identity=change)
    for n in itertools.count(1):
        path = tmp_path / str(n)
        if change != "create":
            made(tmp_path / f"{n}-original")
            (tmp_path / f"{n}-original/orders").mkdir(mode=0o700)
            (tmp_path / f"{n}-original/orders/head").touch()
            subprocess.run(["cp", "-a", tmp_path / f"{n}-original", path], check=True)
        files = FaultyFiles()
        files.stop_at(n)
        try:
            prepare(files, str(path), config)
        except Killed:
            files.bury()
        else:
            files.bury()
            break
        assert made(path, config).barred == "", f"killed at call {n}: {files.journal[-1]}"
    assert n > 5


PREPARE = """
import sys
from mbframework.config import Config
from mbframework.directory import prepare
from mbframework.files import Files
config = Config(identity=sys.argv[1] if len(sys.argv) > 1 else None)
for line in sys.stdin:
    print(prepare(Files(), line.strip(), config), flush=True)
"""


@contextmanager
def preparers(*identities: str) -> Iterator[Callable[[Path], set[str]]]:
    """Two processes; the function has both prepare a directory at once, and returns what they say."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PREPARE, *identities[i : i + 1]], stdin=-1, stdout=-1, text=True
                )
            )
            for i in range(2)
        ]

        def both(path: Path) -> set[str]:
            for process in processes:
                assert process.stdin
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            return {process.stdout.readline() for process in processes if process.stdout}

        yield both


def test_two_that_begin_at_once_agree(tmp_path: Path) -> None:
    with preparers() as both:
        for number in range(20):
            found = both(tmp_path / str(number))
            assert len(found) == 1
            assert "barred=''" in min(found)
            assert os.listdir(tmp_path / str(number)) == ["buffer.json"]


@pytest.mark.parametrize("lanes", [(), ("orders",)])
@pytest.mark.parametrize("other", ["new-identity", "adopt"])
def test_two_that_say_at_once_what_a_copy_is_agree(tmp_path: Path, other: str, lanes: tuple[str, ...]) -> None:
    original = tmp_path / "original"
    was = made(original).buffer_id
    for lane in lanes:
        (original / lane).mkdir(mode=0o700)
        (original / lane / "head").touch()
    with preparers("new-identity", other) as both:
        for number in range(12):
            path = tmp_path / str(number)
            subprocess.run(["cp", "-a", original, path], check=True)
            found = both(path)
            assert len(found) == 1, number
            assert "barred=''" in min(found)
            facts = json.loads((path / "buffer.json").read_text())
            assert repr(bytes.fromhex(facts["id"])) in min(found)
            if other == "new-identity":
                assert facts["was"] == was.hex() != facts["id"]
            assert sorted(os.listdir(path)) == sorted(["buffer.json", *lanes])


def test_what_a_kill_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    path = tmp_path / "b"
    made(path)
    left, pipe, written = (path / f"buffer.json.new.{n}" for n in (1, 2, 3))
    left.write_text("half")
    os.mkfifo(pipe)
    files = Files()
    fd = files.open(str(written), create=True, exclusive=True)
    try:
        assert files.lock(fd)
        assert made(path).barred == ""
        assert sorted(os.listdir(path)) == ["buffer.json", pipe.name, written.name]
    finally:
        os.close(fd)
    made(path)
    assert sorted(os.listdir(path)) == ["buffer.json", pipe.name]


def test_a_name_that_is_only_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """Another process has taken the old ``buffer.json`` away, and the new one is not yet in its place."""
    path = tmp_path / "b"
    was = made(path)
    (path / "orders").mkdir(mode=0o700)
    (path / "orders/head").touch()
    name, draft = path / "buffer.json", path / "buffer.json.new.1"
    name.rename(draft)
    files = Files()
    fd = files.open(str(draft))
    assert files.lock(fd)

    class Patient(Files):
        """Puts the file in its place when somebody has looked for it three times."""

        looks = 0

        def list(self, path: str) -> list[str]:
            self.looks += 1
            if self.looks == 3:
                os.link(draft, name)
                os.unlink(draft)
                os.close(fd)
            return super().list(path)

    assert prepare(Patient(), str(path), CONFIG) == was
    assert sorted(os.listdir(path)) == ["buffer.json", "orders"]


def test_a_device_that_fails_leaves_the_identity_and_no_draft_behind(tmp_path: Path) -> None:
    for n in itertools.count(1):
        original, path = tmp_path / f"{n}-original", tmp_path / str(n)
        made(original)
        (original / "orders").mkdir(mode=0o700)
        (original / "orders/head").touch()
        subprocess.run(["cp", "-a", original, path], check=True)
        files = FaultyFiles()
        files.fail_at(n, errno.EIO)
        try:
            prepare(files, str(path), CONFIG.replace(identity="adopt"))
        except DirectoryError:
            assert made(path, CONFIG.replace(identity="adopt")).barred == "", files.journal
        else:
            if len(files.journal) < n:
                break
        assert sorted(os.listdir(path)) == ["buffer.json", "orders"], files.journal
    assert n > 5


def test_a_full_device_is_named_at_the_first_opening_and_the_next_one_goes_on(tmp_path: Path) -> None:
    for n in itertools.count(1):
        path = tmp_path / str(n)
        files = FaultyFiles()
        files.fail_at(n, errno.ENOSPC, times=1_000)
        config = CONFIG.replace(directory=str(path), mode="always")
        told = ""
        try:
            open_engine(files, config, None).close(0)
        except DirectoryError as error:
            told = str(error)
        if len(files.journal) < n:
            break
        assert re.search(f"{path}.*No space left on device.*; look at .*space", told) or not told
        files.heal()
        open_engine(files, config, None).close(0)
    assert n > 5


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this system has no tmpfs at hand")
def test_always_on_what_keeps_nothing_is_refused_before_anything_is_made() -> None:
    path = Path("/dev/shm", f"mbframework-{uuid.uuid4()}")
    with pytest.raises(ConfigurationError, match="tmpfs") as caught:
        MessageBuffer(path, FakeProvider(), fsync="always")
    assert caught.value.option == "fsync"
    assert not path.exists()


def test_a_network_file_system_is_refused_unless_forced(tmp_path: Path) -> None:
    class Remote(Files):
        def file_system(self, path: str) -> str:
            return "nfs4"

    path = tmp_path / "b"
    with pytest.raises(DirectoryError, match="nfs4"):
        prepare(Remote(), str(path), CONFIG)
    assert not path.exists()
    forced = prepare(Remote(), str(path), CONFIG.replace(force_filesystem=True))
    assert (forced.file_system, forced.mapped) == ("nfs4", False)


def test_what_is_no_lane_is_not_taken_for_one(tmp_path: Path) -> None:
    directory = made(tmp_path / "buffer")
    for name in ("notes", "main", "main-2", ".git"):
        (tmp_path / "buffer" / name).mkdir()
    (tmp_path / "buffer" / "main" / "writer.lock").touch()
    (tmp_path / "buffer" / "main-2" / "head").touch()
    assert directory.lanes(Files()) == ["main", "main-2"]
