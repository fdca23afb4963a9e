"""``mb status``: complete, readable, and not to be fooled by what lies in the directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbframework import MessageBuffer
from mbframework.cli import main
from mbframework.cli.status import report
from mbframework.status import BufferStatus, LaneStatus, SeekPosition
from tests.cli.conftest import Run
from tests.cli.tables import until

PROMISED = {
    *("name", "mode", "state", "accepted", "delivered", "pruned", "expired", "dead", "purged", "lost"),
    *("resident_messages", "resident_bytes", "segments", "oldest_age_s", "last_error", "seek"),
}


def status(directory: Path) -> tuple[dict[str, Any], str]:
    """As JSON, and for people."""
    found = CliRunner().invoke(main, ["status", str(directory), "--json"])
    text = CliRunner().invoke(main, ["status", str(directory)])
    assert (found.exit_code, text.exit_code) == (0, 0), (found.output, text.output)
    return json.loads(found.stdout, parse_constant=pytest.fail), text.stdout


def test_a_running_buffer(tmp_path: Path) -> None:
    down = "fault:?inner=sqlite:out.db&outage=0s+1h"
    with MessageBuffer(tmp_path / "outbox", down, close_timeout=0, status_interval=0.1) as buffer:
        buffer.write_many("t", [b"value"] * 1_234)
        until(lambda: status(tmp_path / "outbox")[0]["lanes"][0]["last_error"])
        found, text = status(tmp_path / "outbox")
    assert found["schema"] == 1
    (lane,) = found["lanes"]
    assert lane.keys() >= PROMISED
    assert (lane["name"], lane["mode"], lane["state"]) == ("main", "buffer", "buffering")
    assert (lane["accepted"], lane["resident_messages"], lane["segments"]) == (1_234, 1_234, 1)
    assert lane["resident_bytes"] > 1_234 * 5
    assert 0 <= lane["oldest_age_s"] < 60
    assert lane["seek"].keys() == {"segment", "sequence", "offset"}
    assert lane["seek"]["sequence"] == 1
    for words in ("main: buffering for ", f"process {os.getpid()}", "1,234", "in 1 segment", "out of reach"):
        assert words in text
    assert "nothing was lost" in text
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_a_writer_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from mbframework import MessageBuffer\n"
        "buffer = MessageBuffer('outbox', None)\n"
        "buffer.write_many('t', [b'value'] * 10)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    for path in (tmp_path / "outbox" / "main").glob("status.*"):
        path.unlink()
    found, text = status(tmp_path / "outbox")
    (lane,) = found["lanes"]
    assert (lane["state"], lane["accepted"], lane["resident_messages"]) == ("dead", 10, 10)
    assert lane["balanced"]
    assert "main: dead: no process has it open, and the last one did not close it" in text


def test_losses_are_named_with_their_numbers() -> None:
    lane = LaneStatus(
        name="main", mode="buffer", state="dead", accepted=5_000_000, delivered=3_998_000, pruned=1_000_000,
        expired=0, dead=0, purged=0, lost=2_000, lost_live=1_500, lost_disk=500, resident_messages=0,
        resident_bytes=0, segments=0, oldest_age_s=None, last_error=None, seek=SeekPosition(1, 5_000_001, 128),
    )  # fmt: skip
    text = "\n".join(report(BufferStatus("/outbox", "0" * 32, (lane,)), now=0.0))
    assert "nothing was lost" not in text
    assert "LOST 1,002,000 messages: 1,000,000 pruned, 1,500 in memory when the program was killed" in text
    assert "500 unreadable on disk" in text


def test_several_lanes_and_none(mb: Run, tmp_path: Path) -> None:
    for name in ("main", "second"):
        with MessageBuffer(tmp_path / "outbox", lane=name) as buffer:
            buffer.write("t", "1")
    found, text = status(tmp_path / "outbox")
    assert [lane["name"] for lane in found["lanes"]] == ["main", "second"]
    assert "2 lanes, 2 messages waiting" in text
    for name in ("main", "second"):
        subprocess.run(["rm", "-r", tmp_path / "outbox" / name], check=True)
    found, text = status(tmp_path / "outbox")
    assert found["lanes"] == []
    assert "no lane yet" in text


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(("kind", "make"), [("a named pipe", os.mkfifo), ("a symbolic link", link)])
@pytest.mark.parametrize(
    "name", ["head", "seek", "segment", "writer.lock", "status.writer.json", "events.writer.jsonl"]
)
def test_what_is_no_file_is_named_and_not_waited_for(
    tmp_path: Path, name: str, kind: str, make: Callable[[Path], None]
) -> None:
    """Neither by who looks, nor by who writes."""
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
    lane = tmp_path / "outbox" / "main"
    if name == "segment":
        (path,) = lane.glob("P*.seg")
        path.unlink()
    else:
        path = lane / name
        path.unlink()
    make(path)
    found, _ = status(tmp_path / "outbox")
    if name in ("head", "seek"):
        says = f"{kind}, not a regular file, stands there as {name!r}; put the file in its place"
        assert found["problems"] == [f"lane main cannot be read: {says}"]
    opened = CliRunner().invoke(main, ["send", str(tmp_path / "outbox"), "t"], input="")
    if name in ("head", "seek", "writer.lock"):
        assert opened.exit_code == 2
        assert f"{kind}, not a regular file, stands there as {name!r}" in opened.stderr
    assert not (tmp_path / "outbox" / "main" / "status.writer.json").is_symlink() or name == "status.writer.json"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another user")
def test_another_user_is_told_what_cannot_be_read() -> None:
    def look() -> Result:
        os.seteuid(65_534)
        try:
            return CliRunner().invoke(main, ["status", str(outbox)])
        finally:
            os.seteuid(0)

    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        outbox = Path(directory, "outbox")
        with MessageBuffer(outbox) as buffer:
            buffer.write("t", "1")
        for mode, path, said in (
            (0o755, outbox, "user 65534 may not open 'buffer.json'; run as its owner"),
            (
                0o644,
                outbox / "buffer.json",
                "lane main cannot be read: user 65534 may not open 'seek'; run as its owner",
            ),
            (0o755, outbox / "main", "lane main cannot be read: user 65534 may not open 'seek'; run as its owner"),
        ):
            found = look()
            assert "nothing was written" not in found.output
            path.chmod(mode)
            found = look()
            assert said in found.output
            assert "nothing was written" not in found.output


HOSTILE = {
    "mode": "\x1b]0;owned\x07",
    "state": "live",
    "reason": "\x1b[31m\u202e",
    "pid": 10**400,
    "since": 10**400,
    "heartbeat_boot_ns": -(10**400),
    "trouble": {"text": "\x9b2J\ud800 " + "wide " * 400, "count": 1e999, "last": float("nan"), "retry_at": -1e308},
    "facts": {"a\x1b": {"b": ["\x1b"]}, "deep": 1},
    "provider": ["not", "text"],
    "blocked": {"no": "text"},
}


@dataclass
class Closed:
    """A buffer with one message that nobody has open, and what its writer last told."""

    directory: Path
    told: dict[str, Any]

    def tell(self, content: object) -> None:
        for name in ("status.writer.json", "status.sender.json"):
            (self.directory / "main" / name).write_text(json.dumps(content))


@pytest.fixture
def closed(tmp_path: Path) -> Closed:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
    told = json.loads((tmp_path / "outbox" / "main" / "status.writer.json").read_text())
    return Closed(tmp_path / "outbox", told)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_hostile_status_file_neither_breaks_nor_steers(closed: Closed, fresh: bool) -> None:
    # Fresh: as if an engine were at work, so that its words are believed.
    beats = {name: closed.told[name] for name in ("boot_id", "heartbeat_boot_ns")} | {"pid": os.getpid()}
    closed.tell(HOSTILE | (beats if fresh else {}))
    found, text = status(closed.directory)
    (lane,) = found["lanes"]
    assert (lane["accepted"], lane["resident_messages"]) == (1, 1)
    assert lane["state"] == ("live" if fresh else "dead")
    assert all(line.isprintable() for line in text.split("\n"))
    assert max(map(len, text.splitlines()[1:])) <= 100


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [*HOSTILE, "boot_id", "closed", "sends", "up", "traffic", "heartbeat"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.sampled_from(FIELDS), Json) | Json, alive=st.booleans())
def test_any_json_in_a_status_file_costs_only_itself(closed: Closed, content: object, alive: bool) -> None:
    if isinstance(content, dict):
        content = closed.told | {"closed": not alive} | content
    closed.tell(content)
    found, text = status(closed.directory)
    assert found["lanes"][0]["accepted"] == 1
    assert all(line.isprintable() for line in text.split("\n"))
