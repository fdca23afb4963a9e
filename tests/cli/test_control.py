"""``mb pause``, ``resume``, ``retry``, ``mode``, ``purge``: beside a running program, after it, and misused."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from mbframework import LaneStatus, MessageBuffer, read_status
from mbframework.cli import main
from tests.cli.conftest import MB, Run, Start, environment
from tests.cli.tables import until, values
from tests.engine.rig import FAST, SMALL, Program, program

#: A program whose lines of stdin become messages, and whose buffer takes requests.
WRITER = (
    "with MessageBuffer(sys.argv[1], sys.argv[2], **FAST) as buffer:\n"
    "    print('open', flush=True)\n"
    "    for line in sys.stdin:\n"
    "        buffer.write('t', line.strip())\n"
    "        print('written', flush=True)\n"
)


@contextmanager
def running(directory: Path, provider: str) -> Iterator[Program]:
    with program(WRITER, directory, provider) as writer:
        assert writer.line() == "open"
        yield writer
        assert writer.end() == (0, "", "")


def write(writer: Program, text: str) -> None:
    writer.tell(text)
    assert writer.line() == "written"


def lane_of(directory: Path) -> LaneStatus:
    (lane,) = read_status(directory).lanes
    return lane


def typed(cwd: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Run mb with a terminal as its stdin, type the answer when it asks; exit status, and what it said."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*MB, *arguments], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd,
            env=environment(None),
        )  # fmt: skip
        assert process.stdout is not None
        asked = b""
        while b"to go on" not in asked and select.select([process.stdout], [], [], 20)[0]:
            some = os.read(process.stdout.fileno(), 4096)
            if not some:
                break
            asked += some
        os.write(ours, f"{answer}\n".encode())
        rest, _ = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    return process.returncode, (asked + rest).decode()


def test_a_pause_holds_the_messages_back_until_resume(mb: Run, tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    with running(directory, f"sqlite:{tmp_path}/out.db") as writer:
        write(writer, "1")
        until(lambda: values(tmp_path / "out.db") == [b"1"])
        done = mb("pause", "outbox")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"lane main: paused\n")
        until(lambda: lane_of(directory).state == "paused")
        write(writer, "2")
        assert mb("retry", "outbox").returncode == 0
        assert values(tmp_path / "out.db") == [b"1"]
        done = mb("resume", "outbox", "--json")
        assert json.loads(done.stdout) == {"schema": 1, "action": "resume", "lanes": [{"lane": "main", "ok": True}]}
        until(lambda: values(tmp_path / "out.db") == [b"1", b"2"])
        writer.process.stdin.close()  # type: ignore[union-attr]
        writer.process.stdin = None


def test_a_pause_outlives_the_program(mb: Run, tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    with program(WRITER, directory, f"sqlite:{tmp_path}/out.db") as writer:
        assert writer.line() == "open"
        assert mb("pause", "outbox").returncode == 0
        write(writer, "1")
        writer.kill()
    with program(WRITER, directory, f"sqlite:{tmp_path}/out.db") as writer:
        assert writer.line() == "open"
        write(writer, "2")
        until(lambda: lane_of(directory).state == "paused")
        assert values(tmp_path / "out.db") == []
        assert mb("resume", "outbox").returncode == 0
        until(lambda: values(tmp_path / "out.db") == [b"1", b"2"])


def test_a_pause_without_a_program_is_for_the_next_one(mb: Run, tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
    done = mb("pause", "outbox", "--json")
    assert (done.returncode, done.stderr) == (0, b"lane main: no process sends it; the next one begins paused\n")
    assert json.loads(done.stdout)["lanes"] == [{"lane": "main", "ok": True, "running": False}]
    assert (tmp_path / "outbox/main/paused").exists()
    since = lane_of(tmp_path / "outbox").paused_since
    assert since == json.loads((tmp_path / "outbox/main/paused").read_bytes())["at"]
    what = f"since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC: the next program will not send;"
    told = CliRunner().invoke(main, ["status", str(tmp_path / "outbox")]).stdout
    assert f" paused {what} mb resume {tmp_path}/outbox ends it mode " in " ".join(told.split())
    told = CliRunner().invoke(main, ["check", str(tmp_path / "outbox")]).stdout
    assert f"; outbox: paused {what} mb resume ends it | " in told
    done = mb("resume", "outbox")
    assert (done.returncode, done.stderr) == (0, b"lane main: no process sends it; the next one is not paused\n")
    done = mb("resume", "outbox")
    assert done.returncode == 2
    assert done.stderr == (b"lane main: nothing is running, no process sends it; start the program, or mb drain\n")


def test_a_wait_between_attempts_is_ended(mb: Run, tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    text = WRITER.replace("**FAST", "**FAST | {'retry_wait': 600, 'retry_wait_max': 600}")
    down = f"fault:?inner=sqlite:{tmp_path}/out.db&outage=0s+1s"
    with program(text, directory, down) as writer:
        assert writer.line() == "open"
        write(writer, "1")
        until(lambda: lane_of(directory).failures)

        def delivered() -> bool:
            assert mb("retry", "outbox").returncode == 0
            return values(tmp_path / "out.db") == [b"1"]

        until(delivered)


@pytest.mark.parametrize("command", [("retry",), ("mode", "always", "--yes")])
def test_without_a_program_that_is_said(mb: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
    name, *rest = command
    done = mb(name, "outbox", *rest, "--json")
    assert done.returncode == 2
    assert b"lane main: nothing is running, no process " in done.stderr
    (lane,) = json.loads(done.stdout)["lanes"]
    assert (lane["lane"], lane["ok"]) == ("main", False)
    assert "nothing is running" in lane["error"]


def test_the_mode_changes_when_it_is_confirmed(mb: Run, tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    down = f"fault:?inner=sqlite:{tmp_path}/out.db&outage=0s+1h"
    with program(WRITER, directory, down) as writer:
        assert writer.line() == "open"
        write(writer, "1")
        until(lambda: lane_of(directory).state == "buffering")
        done = mb("mode", "outbox", "always")
        assert done.returncode == 2
        assert b"give --yes" in done.stderr
        status, said = typed(tmp_path, "yes", "mode", "outbox", "always")
        assert status == 2
        assert "not confirmed; nothing was done" in said
        status, said = typed(tmp_path, "always", "mode", "outbox", "always")
        assert status == 0
        assert said.endswith("lane main: mode always\n")
        until(lambda: lane_of(directory).mode == "always")
        done = mb("mode", "outbox", "raise", "--yes")
        assert done.returncode == 2
        assert b"lane main: " in done.stderr
        assert b"1 messages are there" in done.stderr
    assert b"no such mode" not in done.stderr
    assert b"'allways' is not one of 'block', 'raise', 'buffer', 'always'" in mb("mode", "outbox", "allways").stderr


@pytest.mark.parametrize("runs", [True, False])
def test_a_purge_asks_for_the_number(mb: Run, tmp_path: Path, runs: bool) -> None:
    directory = tmp_path / "outbox"
    down = f"fault:?inner=sqlite:{tmp_path}/out.db&outage=0s+1h"
    with program(WRITER, directory, down) as writer:
        assert writer.line() == "open"
        for number in range(3):
            write(writer, str(number))
        until(lambda: lane_of(directory).resident == 3)
        if not runs:
            writer.kill()
        assert mb("purge", "outbox").returncode == 2
        status, said = typed(tmp_path, "4", "purge", "outbox")
        assert status == 2
        assert "3 messages in outbox will be removed, undelivered: type 3 to go on" in said
        assert "not confirmed" in said
        assert lane_of(directory).resident == 3
        done = mb("purge", "outbox", "--yes", "--json")
        assert (done.returncode, done.stderr) == (0, b"lane main: 3 messages purged\n")
        assert json.loads(done.stdout)["lanes"][0]["purged"] == 3
        until(lambda: (lane_of(directory).purged, lane_of(directory).resident) == (3, 0))
        assert lane_of(directory).balanced


def test_beside_a_process_that_only_writes_whoever_sends_purges_or_the_command_itself(
    mb: Run, start: Start, tmp_path: Path
) -> None:
    directory = tmp_path / "outbox"
    with MessageBuffer(directory, **FAST | SMALL | {"total_size": "4MiB"}) as buffer:

        def fill() -> None:
            for number in range(1000):
                buffer.write("t", b"%d " % number + b"x" * 150)
            buffer.sync()

        fill()
        sidecar = start("drain", "outbox", "--provider", f"fault:?inner=sqlite:{tmp_path}/out.db&outage=0s+1h")
        until(lambda: lane_of(directory).failures)
        before = lane_of(directory).segments
        done = mb("purge", "outbox", "--yes", "--json")
        assert (done.returncode, done.stderr) == (0, b"lane main: 1,000 messages purged\n")
        assert json.loads(done.stdout)["lanes"] == [{"lane": "main", "ok": True, "purged": 1000}]
        until(lambda: lane_of(directory).segments < before)
        assert (lane_of(directory).purged, lane_of(directory).resident) == (1000, 0)
        # What is written from then on waits for the provider as ever.
        fill()
        assert lane_of(directory).resident == 1000
        sidecar.terminate()
        assert sidecar.wait(60) == 0
        before = lane_of(directory).segments
        done = mb("purge", "outbox", "--yes", "--json")
        assert (done.returncode, done.stderr) == (0, b"lane main: 1,000 messages purged\n")
        assert json.loads(done.stdout)["lanes"] == [{"lane": "main", "ok": True, "purged": 1000}]
        lane = lane_of(directory)
        assert (lane.purged, lane.resident, lane.segments < before, lane.balanced) == (2000, 0, True, True)
        assert mb("verify", "outbox").returncode == 0
        buffer.write("t", b"behind it")
        buffer.sync()
        done = mb("drain", "outbox", "--provider", f"sqlite:{tmp_path}/out.db", "--until-empty")
        assert done.returncode == 0, done.stderr
        assert values(tmp_path / "out.db") == [b"behind it"]
        assert mb("purge", "outbox", "--yes").stderr == b"lane main: 0 messages purged\n"
    lane = lane_of(directory)
    assert (lane.accepted, lane.delivered, lane.purged, lane.lost, lane.balanced) == (2001, 1, 2000, 0, True)


def test_a_purge_leaves_a_sidecar_what_its_provider_has_in_hand(mb: Run, start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    with MessageBuffer(directory, **FAST) as buffer:
        buffer.write_many("t", [b"%d" % number for number in range(1000)])
        buffer.sync()
        settings = {"MBFRAMEWORK_BATCH_MESSAGES": "100", "MBFRAMEWORK_CATCH_UP": "full"}
        start("drain", "outbox", "--provider", "fault:?inner=sqlite:out.db&latency=1s", env=settings)
        until(lambda: len(values(tmp_path / "out.db")) >= 200)
        done = mb("purge", "outbox", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        number = json.loads(done.stdout)["lanes"][0]["purged"]
        buffer.write("t", b"behind it")
        until(lambda: lane_of(directory).resident == 0)
    lane = lane_of(directory)
    assert (lane.accepted, lane.delivered, lane.purged, lane.balanced) == (1001, 1001 - number, number, True)
    assert 0 < number < 800
    assert values(tmp_path / "out.db") == [*(b"%d" % each for each in range(1000 - number)), b"behind it"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused as another user")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["verify"], 3, "Error: {}/dead: Permission denied; run this as the user who owns the buffer, or as root\n"),
        (["repair"], 2, "Error: {}/dead: Permission denied; run this as the user who owns the buffer, or as root\n"),
        (["repair", "--yes"], 2, "{}/dead: Permission denied; run this as the user who owns the buffer, or as root\n"),
        (["pause"], 2, "lane main: {}/main/sender.lock: user 65534 may not open 'sender.lock'; run as its owner"),
        (["purge", "--yes"], 2, "lane main: {}/main/writer.lock: user 65534 may not open 'writer.lock'; run as"),
    ],
)
def test_without_permission_the_file_and_what_to_do_are_told(arguments: list[str], status: int, said: str) -> None:
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        outbox = Path(directory, "outbox")
        with MessageBuffer(outbox, "fake://?reject=1") as buffer:
            buffer.write("t", "1")
            buffer.flush(60)
        for path in (outbox, *outbox.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        (outbox / "dead").chmod(0)
        for name in ("writer.lock", "sender.lock"):
            (outbox / "main" / name).unlink()
        (outbox / "main").chmod(0o555)
        os.seteuid(65_534)
        try:
            done = CliRunner().invoke(main, [arguments[0], str(outbox), *arguments[1:]])
        finally:
            os.seteuid(0)
    assert done.exit_code == status, done.output
    assert said.format(outbox) in done.stderr
    assert "Errno" not in done.output


def test_one_lane_or_all(mb: Run, tmp_path: Path) -> None:
    for lane in ("main", "l2"):
        with MessageBuffer(tmp_path / "outbox", lane=lane) as buffer:
            buffer.write("t", "1")
    done = mb("purge", "outbox", "--yes", "--lane", "l2")
    assert done.stderr == b"lane l2: 1 message purged\n"
    done = mb("purge", "outbox", "--yes")
    assert done.stderr == b"lane main: 1 message purged\nlane l2: 0 messages purged\n"
    done = mb("pause", "outbox", "--lane", "l3")
    assert (done.returncode, done.stderr) == (2, b"Error: outbox has no lane 'l3'; expected main, l2\n")


@pytest.mark.parametrize("command", ["pause", "resume", "retry", "purge"])
def test_what_is_no_buffer_is_named(mb: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("empty", "file", "missing"):
        done = mb(command, name)
        assert done.returncode == 2
        assert done.stderr.startswith(b"Error: ")
        assert b"Traceback" not in done.stderr
        assert name.encode() in done.stderr
    assert os.listdir(tmp_path / "empty") == []


def test_a_sidecar_is_paused_resumed_and_stays_paused(mb: Run, start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    with MessageBuffer(directory, **FAST) as buffer:
        sidecar = start("drain", "outbox", "--provider", "sqlite:out.db")
        buffer.write("t", "1")
        until(lambda: values(tmp_path / "out.db") == [b"1"])
        assert mb("pause", "outbox").returncode == 0
        buffer.write("t", "2")
        until(lambda: lane_of(directory).state == "paused")
        sidecar.terminate()
        assert sidecar.wait(60) == 0
        start("drain", "outbox", "--provider", "sqlite:out.db")
        until(lambda: lane_of(directory).state == "paused")
        assert mb("resume", "outbox").returncode == 0
        until(lambda: values(tmp_path / "out.db") == [b"1", b"2"])


def test_a_paused_lane_is_not_waited_for(mb: Run, tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
    assert mb("pause", "outbox").returncode == 0
    done = mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty")
    assert done.returncode == 2
    assert b"lane main is paused: mb resume " in done.stderr
    assert mb("resume", "outbox").returncode == 0
    assert mb("drain", "outbox", "--provider", "sqlite:out.db", "--until-empty").returncode == 0
    assert values(tmp_path / "out.db") == [b"1"]


def test_a_program_as_it_comes_takes_requests(mb: Run, tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox", f"sqlite:{tmp_path}/out.db", **FAST) as buffer:
        done = mb("pause", "outbox")
        assert (done.returncode, done.stderr) == (0, b"lane main: paused\n")
        assert buffer.status().state == "paused"
        buffer.resume()
    with MessageBuffer(tmp_path / "outbox", f"sqlite:{tmp_path}/out.db", **FAST) as buffer:
        until(lambda: buffer.status().state == "live")
