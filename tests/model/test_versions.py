"""Two releases and one backlog: back and forth between formats nothing is lost, reordered, taken for damage, or touched
by a release that does not know it.

The newer release is this one with another number: it reads formats 1 and 2, and writes 1 until it is told to write 2.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import DirectoryError, MessageBuffer, NewerFormat, Sidecar, read_status
from mbframework.config import Config
from mbframework.plugins.source import resolve
from mbframework.repair import repair
from mbframework.spool import layout, record
from mbframework.verify import check_buffer
from tests.known_failures.conftest import eventually, files_below

ROOT = Path(__file__).parents[2]
#: Files that a process writes about itself.
_NARRATION = re.compile(r"(status|events|history)\.|\.lock$|/control/")


class Releases:
    """Runs the older release, which is the one under test, and the newer one."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.buffer, self.out = folder / "buffer", folder / "{lane}.jsonl"
        self.made = made

    def run(self, release: str, *command: str, well: bool = True) -> str:
        """``release``: "1", "2" or, for the newer one that is told to write the newer format, "2 writes 2". What it
        said, on both streams."""
        done = subprocess.run(
            [sys.executable, str(self.made.parent / "release.py"), *command], cwd=self.made.parent, timeout=60,
            env=self.environment(release), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == well, done.stdout
        return done.stdout

    def environment(self, release: str) -> dict[str, str]:
        """Of a process that is of this release."""
        place = ROOT if release == "1" else self.made
        told = "2" if release == "2 writes 2" else "1"
        return os.environ | {"PYTHONPATH": f"{place}{os.pathsep}{place / 'providers'}", "TEST_FORMAT": told}

    def write(self, release: str, first: int, *options: str, well: bool = True) -> str:
        return self.run(release, "write", str(self.buffer), str(first), "10", *options, well=well)

    def drain(self, release: str, seconds: float = 0.0, *, well: bool = True) -> str:
        return self.run(release, "drain", str(self.buffer), str(self.out), str(seconds), well=well)

    def arrived(self, lane: str = "main") -> list[int]:
        path = Path(str(self.out).format(lane=lane))
        if not path.exists():
            return []
        return [int(json.loads(line)["value"].split()[0]) for line in path.read_text().splitlines()]

    def content(self) -> dict[str, bytes]:
        """Everything that counts."""
        return {path: raw for path, raw in files_below(self.buffer).items() if not _NARRATION.search(path)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newer release."""
    folder = tmp_path_factory.mktemp("releases") / "newer"
    for name in ("mbframework", "providers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "mbframework" / "spool" / "layout.py"
    text = path.read_text()
    told = 'FORMAT_MAJOR: Final = int(__import__("os").environ.get("TEST_FORMAT") or 1)'
    for before, after in (
        ("FORMATS: Final = (1,)", "FORMATS: Final = (1, 2)"),
        ("FORMAT_MAJOR: Final = 1\n", f"{told}\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    # Where no package stands beside it.
    shutil.copy(ROOT / "tests" / "model" / "release.py", folder.parent)
    return folder


@pytest.fixture
def releases(tmp_path: Path, made: Path) -> Releases:
    return Releases(tmp_path, made)


@pytest.mark.parametrize(("writer", "sidecar"), [("2", "1"), ("1", "2 writes 2")])
def test_a_backlog_is_sent_by_the_other_release(writer: str, sidecar: str, releases: Releases) -> None:
    releases.write(writer, 0)
    releases.drain(sidecar)
    assert releases.arrived() == list(range(10))
    assert releases.run("2", "status", str(releases.buffer)) == "main 10 10 0 0\n"


def test_a_release_that_goes_back_leaves_what_it_does_not_know(releases: Releases) -> None:
    releases.write("1", 0)
    releases.write("2 writes 2", 10)
    before = releases.content()

    said = releases.write("1", 20, well=False)
    assert "NewerFormat" in said
    assert "has format 2; this release reads format 1" in said
    assert "on_newer='fresh-lane'" in said
    said = releases.drain("1", well=False)
    assert "has format 2; this release reads format 1" in said
    # A sidecar that goes on looks again and again, and ends when it is told to.
    releases.drain("1", 1.5)
    assert releases.content() == before
    assert releases.arrived() == []

    check = check_buffer(str(releases.buffer))
    assert not check.intact
    assert [lane.all_damages for lane in check.lanes] == [[]]
    assert "format 2" in check.errors[0]
    (problem,) = read_status(releases.buffer).problems
    assert "format 2" in problem
    with pytest.raises(DirectoryError, match="format 2"):
        repair(str(releases.buffer))
    assert releases.content() == before

    releases.write("1", 20, "on_newer=fresh-lane")
    kept = {path: raw for path, raw in releases.content().items() if path in before}
    assert kept == before
    # Each lane keeps its order, and between lanes there is none.
    releases.drain("2")
    assert releases.arrived() == list(range(20))
    assert releases.arrived("main-2") == list(range(20, 30))
    assert releases.run("2", "status", str(releases.buffer)) == "main 20 20 0 0\nmain-2 10 10 0 0\n"


def test_a_sidecar_stays_alive_while_the_writer_goes_over(releases: Releases) -> None:
    """The older sidecar is at work; nothing of the newer format is sent by it, harmed by it, or taken for lost."""
    releases.write("1", 0)
    command = [
        sys.executable,
        str(releases.made.parent / "release.py"),
        "drain",
        str(releases.buffer),
        str(releases.out),
        "6",
    ]
    with subprocess.Popen(command, env=releases.environment("1"), stdout=subprocess.PIPE, text=True) as sidecar:
        eventually(lambda: len(releases.arrived()) == 10, "the backlog arriving")
        releases.write("2 writes 2", 10)
        sidecar.communicate(timeout=60)
    assert sidecar.returncode == 0
    assert releases.arrived() == list(range(10))
    releases.drain("2")
    assert releases.arrived() == list(range(20))
    assert releases.run("2", "status", str(releases.buffer)) == "main 20 20 0 0\n"


def of_the_newer_format(path: Path, size: int) -> None:
    """Say of the newest slot that it has format 2."""
    raw = bytearray(path.read_bytes())
    places = [at for at in range(0, size, layout.SLOT_STRIDE) if any(raw[at : at + 4])]
    newest = max(places, key=lambda at: int.from_bytes(raw[at + 8 : at + 16], "little"))
    slot = raw[newest : newest + layout.SLOT_SIZE - 4]
    slot[4:6] = (2).to_bytes(2, "little")
    with path.open("r+b") as file:
        file.seek(newest)
        file.write(record.close_record(bytes(slot)))


def test_a_sidecar_that_holds_the_lane_sends_nothing_and_lives_on(tmp_path: Path) -> None:
    path, broker = tmp_path / "buffer", FakeBroker()
    with MessageBuffer(path, None) as buffer:
        buffer.write_many("t", ["1", "2", "3"])
    broker.down()
    sidecar = Sidecar(
        Config(directory=str(path), close_timeout=0.1, retry_wait=0.01, retry_wait_max=0.05),
        resolve(FakeProvider(broker)),
    )
    thread = threading.Thread(target=sidecar.run)
    thread.start()
    try:
        eventually(lambda: "main" in sidecar.lanes and sidecar.lanes["main"].sender.trouble.count > 0, "an attempt")
        of_the_newer_format(path / "main" / "head", 3 * layout.SLOT_STRIDE)
        kept = (path / "main" / "head").read_bytes()
        broker.up()
        eventually(lambda: "format 2" in sidecar.lanes["main"].outlet.blocked, "the lane being blocked")
        assert thread.is_alive()
    finally:
        sidecar.stop()
        thread.join(60)
    assert broker.count == 0
    assert (path / "main" / "head").read_bytes() == kept


def test_a_writer_goes_on_beside_a_sidecar_of_the_newer_release(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "buffer"
    caplog.set_level(logging.WARNING, "mbframework")
    with MessageBuffer(path, None, segment_size="64KiB", total_size="256KiB") as buffer:
        of_the_newer_format(path / "main" / "seek", 3 * layout.SLOT_STRIDE)
        kept = (path / "main" / "seek").read_bytes()
        lane = buffer.running_lane()
        for _ in range(6):
            buffer.write("t", bytes(15_000))
        # Two rounds of its housekeeper, from a moment on at which the file was as it is now.
        rounds = lane.space_searches
        lane.chores.set()
        eventually(lambda: lane.space_searches > rounds + 1, "the housekeeper's rounds")
        assert buffer.write("t", b"last") == 7
    assert (path / "main" / "seek").read_bytes() == kept
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "format 2" in said[0].getMessage()
    with pytest.raises(NewerFormat):
        MessageBuffer(path, None)
