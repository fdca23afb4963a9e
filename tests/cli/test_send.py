"""``mb send``: what becomes of lines, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from mbframework import read_status
from mbframework.cli import main
from mbframework.status import LaneStatus
from tests.cli.conftest import MB, Run, Start, environment
from tests.cli.tables import until, values


def lane(directory: Path) -> LaneStatus:
    return read_status(directory).lanes[0]


def accepted(directory: Path) -> int:
    """Messages in a buffer, which another process may only just be making."""
    return lane(directory).accepted if (directory / "main" / "head").exists() else 0


def test_lines_become_messages_byte_for_byte(mb: Run, tmp_path: Path) -> None:
    lines = [b"a", b"", b"\x00\xff\r", " ü\t".encode(), b"x" * 300_000, b"last"]
    done = mb("send", "outbox", "t", "--provider", "sqlite:out.db", stdin=b"\n".join(lines))
    assert done.returncode == 0
    assert done.stdout == b""
    assert done.stderr == b"6 messages accepted; nothing waits\n"
    assert values(tmp_path / "out.db") == lines


@pytest.mark.parametrize("stdin", [b"", b"\n", b"\n\n"])
def test_a_line_is_what_ends_with_a_newline(mb: Run, tmp_path: Path, stdin: bytes) -> None:
    assert mb("send", "outbox", "t", "--provider", "sqlite:out.db", stdin=stdin).returncode == 0
    assert values(tmp_path / "out.db") == [b""] * len(stdin)


def test_keys_stand_in_front_of_a_separator(mb: Run, tmp_path: Path) -> None:
    done = mb(
        "send", "outbox", "t", "--provider", "file:out.jsonl", "--key-separator", r"\t", stdin=b"k\tv\tw\nv\n\t\n"
    )
    assert done.returncode == 0
    found = (tmp_path / "out.jsonl").read_text()
    assert [found.count(text) for text in ('"key":"k","value":"v\\tw"', '"key":null,"value":"v"')] == [1, 1]
    assert '"key":"","value":""' in found


def test_without_a_provider_they_only_wait(mb: Run, tmp_path: Path) -> None:
    done = mb("send", "outbox", "t", stdin=b"1\n" * 25_000)
    assert done.returncode == 0
    assert b"25,000 messages accepted; 25,000 wait" in done.stderr
    assert b"mb drain" in done.stderr
    found = lane(tmp_path / "outbox")
    assert (found.accepted, found.resident, found.clean) == (25_000, 25_000, True)


def test_a_provider_that_is_down_costs_the_timeout_and_no_message(mb: Run, tmp_path: Path) -> None:
    down = "fault:?inner=sqlite:out.db%26busy_timeout=1&outage=0s+1h"
    done = mb("send", "outbox", "t", "--provider", down, "--timeout", "300ms", stdin=b"1\n2\n")
    assert done.returncode == 0
    assert b"injected: the provider is out of reach" in done.stderr
    assert b"2 messages accepted; 2 wait on disk" in done.stderr
    assert b"Traceback" not in done.stderr
    assert lane(tmp_path / "outbox").resident == 2


def test_modes_that_keep_nothing_say_what_was_not_delivered(mb: Run) -> None:
    down = "fault:?inner=sqlite:out.db&outage=0s+1h"
    done = mb(
        "send", "outbox", "t", "--mode", "block", "--timeout", "100ms", "--provider", down, stdin=b"1\n2\n",
        env={"MBFRAMEWORK_BLOCK_TIMEOUT": "200ms"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(b"Error: ")


def test_a_line_that_no_buffer_takes_is_refused_alone(mb: Run, tmp_path: Path) -> None:
    lines = [b"before", b"x" * (17 << 20), b"after", b"y" * 2000, b"end"]
    done = mb("send", "outbox", "t", stdin=b"\n".join(lines), env={"MBFRAMEWORK_TOTAL_SIZE": "256KiB"})
    assert done.returncode == 1
    assert b"line 2: longer than 16MiB\n" in done.stderr
    assert b"4 messages accepted, 1 line refused" in done.stderr
    lines = [b"before", b"x" * 20_000, b"after"]
    done = mb("send", "outbox", "t", stdin=b"\n".join(lines), env={"MBFRAMEWORK_TOTAL_SIZE": "256KiB"})
    assert done.returncode == 1
    assert b"line 2: " in done.stderr
    assert b"2 messages accepted, 1 line refused" in done.stderr
    assert lane(tmp_path / "outbox").accepted == 6


def test_a_full_buffer_that_refuses_ends_it_and_tells_how_far_it_came(mb: Run, tmp_path: Path) -> None:
    env = {"MBFRAMEWORK_TOTAL_SIZE": "256KiB", "MBFRAMEWORK_ON_FULL": "reject"}
    done = mb("send", "outbox", "t", stdin=b"x" * 99 + b"\n" + (b"x" * 99 + b"\n") * 9_999, env=env)
    assert done.returncode == 2
    report, error = done.stderr.decode().splitlines()
    assert error.startswith("Error: the buffer is full")
    count = lane(tmp_path / "outbox").accepted
    assert 0 < count < 10_000
    assert report.startswith(f"{count:,} messages accepted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_was_read(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start("send", "outbox", "t")
    assert process.stdin is not None
    process.stdin.write(b"1\n2\n3\nhalf a li")
    process.stdin.flush()
    # A line is written when it comes, not when the input ends.
    until(lambda: accepted(tmp_path / "outbox") == 3)
    process.send_signal(number)
    # Its stdin stays open: the end of that would be another way to end it.
    assert process.wait(60) == 128 + number
    assert process.stderr is not None
    assert b"3 messages accepted; 3 wait" in process.stderr.read()
    found = lane(tmp_path / "outbox")
    assert (found.resident, found.clean) == (3, True)


def test_a_closed_stdin_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", " ".join([*MB, "send", "outbox", "t", "<&-"])], cwd=tmp_path, env=environment(None),
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, b"Error: stdin is closed; expected the lines there\n")
    assert list(tmp_path.iterdir()) == []


def test_nobody_has_to_listen_to_the_narration(start: Start, tmp_path: Path) -> None:
    """Neither the counts at the end nor the provider's troubles in between stop it."""
    process = start("send", "outbox", "t", "--provider", "fault:?inner=sqlite:out.db&outage=0s+500ms")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    process.stdin.write(b"1\n" * 10)
    process.stdin.flush()
    until(lambda: len(values(tmp_path / "out.db")) == 10)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert lane(tmp_path / "outbox").resident == 0


def test_narration_that_finds_no_room_stops_nothing(start: Start, tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        process = start("send", "outbox", "t", "--provider", "fault:?inner=sqlite:out.db&outage=0s+500ms", stderr=full)
        process.communicate(b"1\n" * 10, timeout=60)
    assert process.returncode == 0
    assert values(tmp_path / "out.db") == [b"1"] * 10


def test_the_provider_may_stand_in_the_environment_or_a_file(mb: Run, tmp_path: Path) -> None:
    env = {"MBFRAMEWORK_PROVIDER": "sqlite:env.db"}
    assert mb("send", "a", "t", stdin=b"1\n", env=env).returncode == 0
    (tmp_path / "mb.toml").write_text('provider = "sqlite:file.db"\nmode = "always"\n')
    assert mb("send", "b", "t", "--config", "mb.toml", stdin=b"2\n").returncode == 0
    assert mb("send", "c", "t", "--config", "mb.toml", "--mode", "buffer", stdin=b"3\n").returncode == 0
    assert values(tmp_path / "env.db") == [b"1"]
    assert values(tmp_path / "file.db") == [b"2", b"3"]
    assert (lane(tmp_path / "b").mode, lane(tmp_path / "c").mode) == ("always", "buffer")


def test_an_unknown_mode_names_those_there_are() -> None:
    result = CliRunner().invoke(main, ["send", "d", "t", "--mode", "bufer"])
    assert "block, raise, buffer, always; did you mean 'buffer'?" in result.stderr


def test_the_command_that_it_suggests_can_be_pasted_whatever_the_directory_is_called(tmp_path: Path) -> None:
    for name in (b"it's \xff\n7 \x1b[2J\xc3\xbc", b"it's here"):
        directory = os.path.join(os.fsencode(tmp_path), name)
        arguments = [*map(os.fsencode, MB), b"send", directory, b"t"]
        done = subprocess.run(arguments, input=b"x\n", capture_output=True, env=environment(None), check=True)
        command = done.stderr.decode().split("`")[1]
        assert command.isprintable()
        word = command.removeprefix("mb drain").removesuffix("--provider URL")
        told = subprocess.run(["bash", "-c", f'set -- {word}; printf %s "$1"'], capture_output=True, check=True)
        assert told.stdout == directory
