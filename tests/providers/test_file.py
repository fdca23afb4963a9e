"""The provider ``file`` on real files: round trip, torn lines, refused writes, locks, rotation, refusals."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from mbframework_file.line import decode, encode
from mbframework_file.provider import FileProvider

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import Message
from mbframework.plugins.source import resolve
from tests.providers.batches import (
    ROOT,
    any_messages,
    batch_of,
    context,
    documented_urls,
    make_batch,
    sequences_of,
)
from tests.providers.provider_pages import documented_examples

New = Callable[..., FileProvider]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def new(path: Path) -> Iterator[New]:
    """Makes and opens providers of one file; they are closed after the test."""
    made: list[FileProvider] = []

    def make(name: Path = path, *, fsync: bool = False, lane: str = "main") -> FileProvider:
        provider = FileProvider(name, fsync=fsync)
        made.append(provider)
        provider.open(context(lane))
        return provider

    yield make
    for provider in made:
        provider.close(1)


def stored(path: Path) -> list[Message]:
    return [decode(line) for line in path.read_bytes().splitlines(keepends=True)]


@settings(deadline=None)
@given(any_messages)
def test_any_message_comes_back_as_it_was(messages: list[Message]) -> None:
    lines = encode(batch_of(messages))
    assert lines.endswith(b"\n")
    assert [decode(line) for line in lines.removesuffix(b"\n").split(b"\n")] == messages


def test_a_line_is_readable(new: New, path: Path) -> None:
    message = Message(7, "orders", "grün".encode(), b"\xff", (("a", b"1"), ("b", None), ("c", b"\xfe")), None, 2, 9)
    new().send(batch_of([message]))
    assert path.read_text() == (
        '{"schema":1,"sequence":7,"topic":"orders","partition":2,"key_base64":"/w==","value":"grün",'
        '"headers":[["a","1"],["b",null],["c",{"base64":"/g=="}]],"timestamp":null,"accepted":9}\n'
    )


@pytest.mark.parametrize("line", ['{"schema":2}', "[]", "7", '{"schema":1,"topic":"t"}', "{"])
def test_what_is_no_line_of_ours_does_not_decode(line: str) -> None:
    with pytest.raises(ValueError):
        decode(line)


@pytest.mark.parametrize("fsync", [True, False])
def test_batches_are_appended_also_to_what_was_there(new: New, path: Path, fsync: bool) -> None:
    first = new(fsync=fsync)
    first.send(make_batch(1, 3))
    first.close(1)
    second = new(fsync=fsync)
    second.send(make_batch(4, 3))
    assert sequences_of(stored(path)) == list(range(1, 7))


def test_a_line_torn_anywhere_is_cut_off_with_a_warning(
    tmp_path: Path, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    whole, last = encode(make_batch(1, 2)), encode(make_batch(3, 1, size=150_000))
    for length in (1, 9, 10, 11, 60, len(last) - 1):
        path = tmp_path / f"{length}.jsonl"
        path.write_bytes(whole + last[:length])
        with caplog.at_level(logging.WARNING):
            provider = new(path)
        assert f"cut off {length} bytes" in caplog.messages[-1]
        provider.send(make_batch(3, 1))
        assert sequences_of(stored(path)) == [1, 2, 3]


def test_a_file_of_one_torn_line_and_one_of_zeros_become_empty(tmp_path: Path, new: New) -> None:
    for name, content in (("torn", encode(make_batch(1, 1))[:-5]), ("zeros", b"\0" * 5000)):
        (tmp_path / name).write_bytes(content)
        new(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b""


def test_a_line_of_somebody_else_is_never_cut(path: Path) -> None:
    path.write_text("first\nsomebody's notes without an end")
    with pytest.raises(ProviderUnusable, match="did not write"):
        FileProvider(path).open(context())
    assert path.read_text() == "first\nsomebody's notes without an end"


CHILD = """
import itertools, sys
from mbframework_file.provider import FileProvider
from tests.providers.batches import context, make_batch

provider = FileProvider(sys.argv[1], fsync=False)
provider.open(context())
for at in itertools.count(int(sys.argv[2]), 500):
    provider.send(make_batch(at, 500, size=300))
    print(at + 500, flush=True)
"""


def test_after_kill_9_what_was_acknowledged_is_there_and_only_whole_lines(path: Path, new: New) -> None:
    at = 1
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(at)], stdout=subprocess.PIPE, cwd=ROOT
        ) as child:
            assert child.stdout is not None
            acknowledged = [int(child.stdout.readline()) for _ in range(5)][-1]
            threading.Event().wait(0.003)
            child.send_signal(signal.SIGKILL)
        new(path).close(1)
        found = sequences_of(stored(path))
        assert found == list(range(1, len(found) + 1))
        at = len(found) + 1
        assert at >= acknowledged


LIMITED = """
import resource, sys
from pathlib import Path
from mbframework.errors import SendFailed
from mbframework_file.provider import FileProvider
from tests.providers.batches import context, make_batch

path = Path(sys.argv[1])
provider = FileProvider(path)
provider.open(context())
provider.send(make_batch(1, 3))
before = path.read_bytes()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
for _ in range(2):
    try:
        provider.send(make_batch(4, 100, size=1_000))
    except SendFailed as error:
        print("failed:", error, error.uncertain)
    assert path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
provider.send(make_batch(4, 100, size=1_000))
provider.close(1)
"""


def test_a_batch_that_does_not_fit_leaves_nothing_and_succeeds_later(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large; it is as it was before this batch") == 2
    assert "True" not in done.stdout
    assert sequences_of(stored(path)) == list(range(1, 104))


def test_a_second_writer_waits_its_turn(new: New, path: Path) -> None:
    first = new()
    second = FileProvider(path)
    with pytest.raises(SendFailed, match=r"another process or lane; .*\{lane\}"):
        second.open(context("other"))
    first.close(1)
    second.open(context("other"))
    second.send(make_batch(1, 1))
    second.close(1)
    assert len(stored(path)) == 1


def test_lanes_have_files_of_their_own(new: New, tmp_path: Path) -> None:
    for lane in ("one", "two"):
        new(tmp_path / "{lane}.jsonl", lane=lane).send(make_batch(1, 2))
        assert len(stored(tmp_path / f"{lane}.jsonl")) == 2
    with pytest.raises(ProviderUnusable, match="rename the lane"):
        new(tmp_path / "{lane}.jsonl", lane="../three")


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_a_file_that_was_rotated_away_is_made_anew(new: New, path: Path, how: str) -> None:
    provider = new()
    provider.send(make_batch(1, 2))
    if how == "deleted":
        path.unlink()
    else:
        path.rename(path.with_suffix(".1"))
    if how == "replaced":
        path.write_bytes(encode(make_batch(3, 1)))
    provider.send(make_batch(4, 2))
    assert sequences_of(stored(path)) == ([3, 4, 5] if how == "replaced" else [4, 5])
    if how != "deleted":
        assert sequences_of(stored(path.with_suffix(".1"))) == [1, 2]


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "make, said",
    [
        (make_link, "symbolic link"),
        (Path.mkdir, "directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.with_name("missing") / "out.jsonl", "create its folder"),
    ],
)
def test_what_cannot_be_a_file_is_refused(path: Path, make: Callable[[Path], Path | None], said: str) -> None:
    provider = FileProvider(make(path) or path)
    with pytest.raises(ProviderUnusable, match=said):
        provider.open(context())
    assert not provider.check().ok
    assert not path.with_name("elsewhere").exists()


def test_looking_makes_no_file_and_does_not_lock(new: New, path: Path) -> None:
    assert FileProvider(path).check().ok
    assert not path.exists()
    new().send(make_batch(1, 1))
    health = FileProvider(path).check()
    assert health.ok
    assert int(health.facts["bytes"]) == path.stat().st_size


def test_closed_twice_and_opened_again(new: New, path: Path) -> None:
    provider = new()
    provider.close(1)
    provider.close(1)
    with pytest.raises(SendFailed, match=r"call open\(\) first"):
        provider.send(make_batch(1, 1))
    provider.open(context())
    provider.send(make_batch(1, 1))
    assert len(stored(path)) == 1


@pytest.mark.parametrize("url", ["file:", "file:///tmp/", "file:out.jsonl?fsync=perhaps", "file:out.jsonl?sync=1"])
def test_a_wrong_url_is_refused_before_anything_is_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError):
        resolve(url)
    assert list(tmp_path.iterdir()) == []


def test_the_documented_examples_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for program in documented_examples("file"):
        exec(program, {})
    assert "sequence=1, topic='orders', value=b'text', key=b'42'" in capsys.readouterr().out


@pytest.mark.parametrize("url", documented_urls("file", "file"))
def test_every_documented_url_works(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var/lib/app").mkdir(parents=True)
    source = resolve(url.replace("file:///var", f"file://{tmp_path}/var"))
    assert source is not None
    provider = source.create(context("blue"))
    provider.open(context("blue"))
    provider.send(make_batch(1, 2))
    provider.close(1)
    (made,) = itertools.chain(tmp_path.glob("*.jsonl"), tmp_path.glob("var/lib/app/*.jsonl"))
    assert ("blue" in made.name) == ("{lane}" in url)
    assert json.loads(made.read_text().splitlines()[0])["sequence"] == 1
