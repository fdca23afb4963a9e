"""``mb dead``: what is listed and how, what is replayed and dropped, with and without a program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import Message, MessageBuffer, read_status
from mbframework.cli.dead import preview, row
from mbframework.deadstore import Letter
from tests.cli.conftest import Run, Start
from tests.cli.tables import until, values
from tests.cli.test_control import running, typed, write
from tests.engine.rig import FAST

ESCAPE = "\x1b[31m\r\n\u202e"


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """A buffer with five dead letters: three of the topic "a", two of "b"."""
    provider = FakeProvider()

    def verdict(message: Message) -> str | None:
        return f"no {message.topic} {message.key.decode() if message.key else ''}{ESCAPE}"

    provider.reject_when(verdict)
    with MessageBuffer(tmp_path / "outbox", provider, **FAST) as buffer:
        for topic, key, value in (
            ("a", "k1", b"v1"), ("b", None, None), ("a", f"k3{ESCAPE}", ESCAPE.encode()), ("b", "k4", b"\xff\x00"),
            ("a", "k5", b'{"n": 5}'),
        ):  # fmt: skip
            buffer.write(topic, value, key=key, headers=[("h", b"1")], timestamp=7, partition=1)
        buffer.flush(60)
    return tmp_path / "outbox"


def listed(mb: Run, *arguments: str) -> dict[str, Any]:
    done = mb("dead", "list", "outbox", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["schema"] == 1
    return found


def ids(mb: Run, *arguments: str) -> list[int]:
    return [letter["id"] for letter in listed(mb, *arguments)["letters"]]


@pytest.mark.usefixtures("outbox")
def test_the_table_has_a_line_a_letter_and_nothing_that_steers_a_terminal(mb: Run) -> None:
    done = mb("dead", "list", "outbox")
    assert (done.returncode, done.stderr) == (0, b"")
    heading, *lines = done.stdout.decode().split("\n")[:-1]
    assert heading.split() == ["id", "when", "(UTC)", "topic", "key", "size", "reason"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert all(line.isprintable() for line in lines)
    assert "(none)" in lines[1]
    assert r"no a k5\x1b[31m\r\n\u202e" in lines[4]
    full = mb("dead", "list", "outbox", "--full", "3").stdout.decode()
    assert full.replace("\n", "").isprintable()
    assert r"  value      \x1b[31m\r\n\u202e" in full.splitlines()
    assert "  header     h: 1" in full.splitlines()
    assert "  partition  1" in full.splitlines()


@pytest.mark.usefixtures("outbox")
def test_letters_are_chosen_and_counted(mb: Run) -> None:
    assert ids(mb) == [1, 2, 3, 4, 5]
    assert ids(mb, "--topic", "b") == [2, 4]
    assert ids(mb, "--topic", "a", "--reason", "k[15]") == [1, 5]
    assert ids(mb, "2", "4", "9") == [2, 4]
    assert ids(mb, "--topic", "a", "1", "2") == [1]
    short = listed(mb, "--limit", "2")
    assert (short["total"], len(short["letters"])) == (5, 2)
    short = listed(mb, "--limit", "1", "--topic", "a")
    assert (short["total"], len(short["letters"])) == (3, 1)
    assert mb("dead", "list", "outbox", "--limit", "2").stderr == b"3 more: --limit 0 shows all\n"
    one = listed(mb, "1")["letters"][0]
    assert {name: one[name] for name in ("lane", "topic", "key", "partition", "timestamp", "sequence")} == {
        "lane": "main", "topic": "a", "key": "k1", "partition": 1, "timestamp": 7, "sequence": 1,
    }  # fmt: skip
    assert "value" not in one
    full = listed(mb, "--full")["letters"]
    assert [full[0]["value"], full[1]["value"], full[3]["value_base64"]] == ["v1", None, "/wA="]
    assert full[0]["headers"] == [{"name": "h", "value": "1"}]


def test_an_empty_store_says_so(mb: Run, tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
    done = mb("dead", "list", "outbox")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"no dead letters\n")
    assert mb("dead", "drop", "outbox", "--all").returncode == 0


@pytest.mark.usefixtures("outbox")
def test_mistakes_are_one_line(mb: Run) -> None:
    for arguments, said in (
        (("drop", "outbox", "--yes"), b"no dead letters are named; expected ids, --topic, --reason, or --all"),
        (("drop", "outbox", "--yes", "7"), b"there is no dead letter 7; `mb dead list outbox` shows what there is"),
        (("drop", "outbox", "--yes", "--all", "1"), b"ids and --all contradict each other; give one of them"),
        (("list", "outbox", "--reason", "("), b"is not a regular expression"),
        (("list", "outbox", "--lane", "x"), b"outbox has no lane 'x'; expected main"),
        (("list", "nowhere"), b"nowhere is not a directory"),
        (("drop", "outbox", "0"), b"0 is not in the range"),
    ):
        done = mb("dead", *arguments)
        assert done.returncode == 2, arguments
        assert said in done.stderr
        assert b"Traceback" not in done.stderr
    assert ids(mb) == [1, 2, 3, 4, 5]


def test_a_drop_is_confirmed_by_its_number(mb: Run, outbox: Path) -> None:
    assert mb("dead", "drop", "outbox", "1").returncode == 2
    status, said = typed(outbox.parent, "yes", "dead", "drop", "outbox", "--topic", "a")
    assert status == 2
    assert "3 dead letters of outbox will be dropped for good: type 3 to go on" in said
    assert ids(mb) == [1, 2, 3, 4, 5]
    status, said = typed(outbox.parent, "3", "dead", "drop", "outbox", "--topic", "a")
    assert status == 0
    assert said.endswith("3 dead letters dropped\n")
    assert ids(mb) == [2, 4]
    done = mb("dead", "drop", "outbox", "--all", "--yes", "--json")
    assert json.loads(done.stdout) == {
        "schema": 1, "action": "drop", "done": 2, "asked": 2,
        "lanes": [{"lane": "main", "asked": 2, "done": 2, "why": ""}],
    }  # fmt: skip
    assert ids(mb) == []
    (lane,) = read_status(outbox).lanes
    assert (lane.accepted, lane.dead, lane.balanced) == (5, 5, True)


def test_replay_without_a_program_leaves_them_to_be_sent(mb: Run, outbox: Path, tmp_path: Path) -> None:
    done = mb("dead", "replay", "outbox", "--topic", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"3 dead letters replayed\n")
    assert ids(mb) == [2, 4]
    (lane,) = read_status(outbox).lanes
    assert (lane.accepted, lane.dead, lane.resident, lane.balanced) == (8, 5, 3, True)
    assert mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty").returncode == 0
    assert values(tmp_path / "out.db") == [b"v1", ESCAPE.encode(), b'{"n": 5}']


def test_replay_beside_a_program_that_sends(mb: Run, outbox: Path, tmp_path: Path) -> None:
    with running(outbox, f"sqlite:{tmp_path}/out.db") as writer:
        write(writer, "first")
        until(lambda: values(tmp_path / "out.db") == [b"first"])
        done = mb("dead", "replay", "outbox", "1", "5", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == 2
        until(lambda: values(tmp_path / "out.db") == [b"first", b"v1", b'{"n": 5}'])
        assert ids(mb) == [2, 3, 4]
        assert mb("dead", "drop", "outbox", "--all", "--yes").returncode == 0
        assert ids(mb) == []
        writer.process.stdin.close()  # type: ignore[union-attr]
        writer.process.stdin = None


def test_with_letters_in_several_lanes_ids_need_one(mb: Run, outbox: Path) -> None:
    with MessageBuffer(outbox, "fake:?reject_every=1", lane="l2", **FAST) as buffer:
        buffer.write("c", "1")
        buffer.flush(60)
    assert [letter["lane"] for letter in listed(mb, "--topic", "c", "--topic", "b")["letters"]] == [
        "main",
        "main",
        "l2",
    ]
    assert listed(mb, "--limit", "1")["total"] == 6
    done = mb("dead", "drop", "outbox", "1", "--yes")
    assert (done.returncode, done.stderr) == (
        2, b"Error: several lanes have dead letters; give --lane, one of main, l2\n",
    )  # fmt: skip
    assert mb("dead", "drop", "outbox", "1", "--yes", "--lane", "l2").returncode == 0
    assert ids(mb) == [1, 2, 3, 4, 5]


def test_replay_and_drop_beside_a_sidecar_and_a_program_that_only_writes(
    mb: Run, start: Start, outbox: Path, tmp_path: Path
) -> None:
    with MessageBuffer(outbox, **FAST) as buffer:
        start("drain", "outbox", "--provider", "sqlite:out.db")
        buffer.write("t", "first")
        until(lambda: values(tmp_path / "out.db") == [b"first"])
        done = mb("dead", "replay", "outbox", "1")
        assert (done.returncode, done.stderr) == (0, b"1 dead letter replayed\n")
        until(lambda: values(tmp_path / "out.db") == [b"first", b"v1"])
        assert mb("dead", "drop", "outbox", "--all", "--yes").returncode == 0
        assert ids(mb) == []


def test_a_line_is_cut_where_the_terminal_ends() -> None:
    letter = Letter(1, 0.0, "r" * 500, 1, "", "topic" * 9, b"k" * 10**6, b"", (), None, None)
    line = row(letter, 100)
    assert len(line) == 100
    assert line.endswith("…")
    assert "topictopictopictopi…  kkkkkkkkkkkkkkk…" in line
    assert preview(b"\xff") == r"\xff"
