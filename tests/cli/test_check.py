"""``mb check``: the right status for real buffers, and one line whatever stands in the directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, read_status
from mbframework.cli import main
from mbframework.cli.judgement import Check, Grade, Rules, judge, worst
from mbframework.cli.losses import lost_since
from mbframework.cli.plugin_output import line, performance_of, text_of
from mbframework.cli.thresholds import Bound, Thresholds
from mbframework.deadstore import DeadStore
from mbframework.files import Files
from mbframework.metrics.samples import LaneReading, Reading
from mbframework.status import STATES, LaneStatus, SeekPosition
from tests.cli.conftest import MB, Run
from tests.engine.rig import FAST, SMALL, eventually, in_state
from tests.monitor.lanes import make_lane

DATUM = re.compile(r"('[^'=|]+'|[\w-]+)=(U|-?[\d.]+(?:s|B|c)?(?:;[\d.]*){0,4})")


def check(*arguments: str | Path) -> tuple[int, str, dict[str, str]]:
    """Status, words, numbers by their label."""
    done = CliRunner().invoke(main, ["check", *map(str, arguments)])
    assert done.stderr == ""
    (output,) = done.stdout.splitlines()
    words, _, numbers = output.partition(" | ")
    assert words.isprintable()
    data = dict(DATUM.findall(numbers))
    assert len(data) == (len(re.findall(r"=", numbers)))
    return done.exit_code, words, data


def test_a_buffer_that_is_well(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox", FakeProvider(), total_size="1MiB", **FAST) as buffer:
        buffer.write("t", "1")
        buffer.flush(60)
        in_state(buffer, "live")
        eventually(lambda: check(tmp_path / "outbox")[1] == "MB OK - outbox: live, nothing waits", "live on disk")
        code, _, data = check(tmp_path / "outbox")
        assert check(tmp_path / "outbox", "--running")[0] == 0
    assert code == 0
    assert data["resident"] == "0;;;0"
    assert data["size"] == f"0B;{1 << 19};{(1 << 20) * 0.9:.1f};0;{1 << 20}"
    assert data["oldest"] == "0s;300;3600;0"
    assert (data["accepted"], data["delivered"]) == ("1c", "1c")
    # Closed, and nothing waits.
    assert check(tmp_path / "outbox")[:2] == (0, "MB OK - outbox: dead, nothing waits")
    assert check(tmp_path / "outbox", "--running")[:2] == (2, "MB CRITICAL - outbox: no process has it")


def test_an_outage_with_its_thresholds(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "outbox", "fault:?inner=fake:&outage=0s+1h", **FAST) as buffer:
        buffer.write_many("t", [b"x" * 100] * 50)
        eventually(lambda: "no sign" not in check(tmp_path / "outbox", "--heartbeat", "1h,")[1], "a heartbeat")
        eventually(lambda: buffer.status().failures, "a failure")
        assert check(tmp_path / "outbox")[:2] == (0, "MB OK - outbox: buffering, 50 messages wait")
        for option, value, status, said in (
            ("--resident", "50,51", 1, "50 messages wait"),
            ("--resident", ",50", 2, "50 messages wait"),
            ("--resident", "51,", 0, "buffering"),
            ("--size", "1kB,1MB", 1, "wait, 0% of total_size"),
            ("--size", "0.0001%,0.0002%", 2, "of total_size"),
            ("--oldest", "1ms,1h", 1, "the oldest of 50 messages has waited for"),
            ("--not-live", ",1ms", 2, "buffering for"),
            ("--error", "1ms,", 1, "the provider has failed for"),
        ):
            eventually(lambda o=option, v=value, s=status: check(tmp_path / "outbox", o, v)[0] == s, option)
            assert said in check(tmp_path / "outbox", option, value)[1]
        assert "injected" in check(tmp_path / "outbox", "--error", "0s,")[1]
    code, words, _ = check(tmp_path / "outbox")
    assert (code, words) == (1, "MB WARNING - outbox: no process has it, and 50 messages wait")
    assert check(tmp_path / "outbox", "--running")[0] == 2


def test_losses_are_counted_over_a_time_or_since_ever(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "outbox", provider, **(FAST | SMALL)) as buffer:
        for _ in range(1_000):
            buffer.write("t", b"x" * 500)
        provider.up()
        buffer.flush(60)
        pruned = buffer.status().pruned
    lane = tmp_path / "outbox" / "main"
    assert pruned > 0
    code, words, data = check(tmp_path / "outbox")
    assert (code, words) == (2, f"MB CRITICAL - outbox: {pruned:,} messages pruned within 1d")
    assert data["pruned"] == f"{pruned};;1;0"
    assert lost_since(Files(), str(lane), 0.0)["pruned"] == pruned
    # Two days later the log says that it was two days ago; the account says that it was.
    for path in lane.glob("events.*.jsonl"):
        lines = [json.loads(each) for each in path.read_text().splitlines()]
        for each in lines:
            each["at"] -= 2 * 86_400
        path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    # Of this boot, though: it was the wall clock that was set.
    assert check(tmp_path / "outbox")[0] == 2
    for path in lane.glob("events.*.jsonl"):
        path.write_text(path.read_text().replace(Files().boot_id().hex(), "0" * 32))
    assert check(tmp_path / "outbox")[0] == 0
    assert check(tmp_path / "outbox", "--within", "3d")[1].endswith("messages pruned within 3d")
    assert check(tmp_path / "outbox", "--within", "none")[1].endswith(
        f"{pruned:,} messages pruned since the buffer was made"
    )
    assert check(tmp_path / "outbox", "--within", "none", "--pruned", f",{pruned + 1}")[0] == 0
    # Without a log the account is what is left; a log that tells more than the account is not believed.
    (lane / "events.writer.jsonl").write_text(
        "".join(json.dumps({"kind": "prune", "at": time.time(), "undelivered": 1 << 40}) + "\n" for _ in range(3))
        + '{"kind": "prune", "at": "\x1b", "undelivered": 7}\n{"kind": "prune"'
    )
    assert check(tmp_path / "outbox")[2]["pruned"].startswith(f"{pruned};")
    (lane / "events.writer.jsonl").unlink()
    assert check(tmp_path / "outbox")[0] == 0


def test_dead_letters_and_expired_ones(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.reject_when(lambda message: "no such column" if message.value == b"bad" else None)
    with MessageBuffer(tmp_path / "outbox", provider, **FAST) as buffer:
        buffer.write_many("t", [b"good", b"bad", b"good"])
        buffer.flush(60)
    assert check(tmp_path / "outbox")[:2] == (1, "MB WARNING - outbox: 1 dead letter, rejected within 1d")
    assert check(tmp_path / "outbox", "--dead", "1,1")[0] == 2
    assert check(tmp_path / "outbox", "--dead", "none")[0] == 0
    # What somebody has seen to needs nobody any more; that it was rejected stays in the account.
    store = DeadStore(Files(), str(tmp_path / "outbox" / "dead" / "main"))
    (lane,) = read_status(tmp_path / "outbox").lanes
    assert (lane.dead, lane.dead_letters) == (1, 1)
    assert store.drop([letter.id for letter in store.letters()]) == 1
    assert check(tmp_path / "outbox")[:2] == (0, "MB OK - outbox: dead, nothing waits")
    (lane,) = read_status(tmp_path / "outbox").lanes
    assert (lane.dead, lane.dead_letters, lane.balanced) == (1, 0, True)


def test_several_buffers_the_worst_counts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"p{number}").mkdir()
        make_lane(tmp_path / f"p{number}" / "outbox", segments=number, delivered=10 * number)
    MessageBuffer(tmp_path / "p1" / "outbox", lane="other").close()
    MessageBuffer(tmp_path / "third").close()
    one, two, third = tmp_path / "p1" / "outbox", tmp_path / "p2" / "outbox", tmp_path / "third"
    code, words, data = check(one, third, one)
    assert (code, words) == (0, "MB OK - 2 buffers: 3 lanes, nothing waits")
    assert {"'outbox/resident'", "'outbox/other/resident'", "'third/resident'"} <= set(data)
    assert "resident" in check(one)[2]
    assert "'other/resident'" in check(one)[2]
    # Names that are the same tell nothing.
    assert f"'{two}/resident'" in check(one, two)[2]
    code, words, _ = check(one, tmp_path / "missing", "--running")
    assert code == 2
    assert words.index("no process has it") < words.index("missing: ")
    code, words, data = check(tmp_path / "missing", one)
    assert (code, words.startswith("MB UNKNOWN - missing: ")) == (3, True)
    assert "No such file or directory" in words
    assert "'outbox/resident'" in data


def test_json(tmp_path: Path) -> None:
    make_lane(tmp_path / "outbox", segments=1)
    done = CliRunner().invoke(main, ["check", str(tmp_path / "outbox"), str(tmp_path), "--json"])
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert done.exit_code == found["exit"] == 3
    assert (found["schema"], found["status"]) == (1, "unknown")
    first, second = found["directories"]
    assert (first["status"], second["status"]) == ("warning", "unknown")
    (lane,) = first["lanes"]
    assert lane["findings"] == [{"status": "warning", "text": "no process has it, and 10 messages wait"}]
    assert lane["measures"]["resident"] == {"value": 10, "unit": "", "warning": None, "critical": None, "status": "ok"}
    assert "is not a buffer" in second["findings"][0]["text"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'DIR...'"),
        ([""], "is empty; expected a path"),
        (["outbox", "--nonsense"], "No such option"),
        (["outbox", "--oldest", "5m"], "'5m': expected WARNING,CRITICAL such as '5m,1h', or 'none'"),
        (["outbox", "--oldest", "1h,5m"], "must not be the larger one"),
        (["outbox", "--oldest", "soon,"], "'--oldest': 'soon'"),
        (["outbox", "--size", "64M,"], "expected '64MB' (decimal) or '64MiB' (binary)"),
        (["outbox", "--resident", "-1,"], "'-1'"),
        (["outbox", "--within", "1x"], "--within: '1x'"),
        (["outbox", "--timeout", "\x1b[2J"], "--timeout: "),
        (["missing\x1b[2J|x"], "missing\\x1b[2J¦x cannot be read"),
    ],
)
def test_its_own_failures_are_unknown_and_one_line(mb: Run, arguments: list[str], said: str) -> None:
    done = mb("check", *arguments)
    assert (done.returncode, done.stderr) == (3, b"")
    (output,) = done.stdout.decode().splitlines()
    assert output.startswith("MB UNKNOWN - ")
    assert said in output
    assert output.isprintable()


def test_a_defect_and_an_interrupt_are_unknown() -> None:
    def run(patch: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        program = (
            "import sys, mbframework.cli.check as module\n"
            "def fail(*_):\n"
            f"    raise {patch}\n"
            "module._readings = fail\n"
            f"from mbframework.cli import main; main([*{list(options)!r}, 'check', '.'])\n"
        )
        return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)

    done = run("ZeroDivisionError('by\\x1bzero')")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"MB UNKNOWN - by\\x1bzero\n", b"")
    assert b"Traceback" in run("ZeroDivisionError()", "--debug").stderr
    assert run("KeyboardInterrupt").stdout == b"MB UNKNOWN - interrupted\n"
    assert run("KeyboardInterrupt").returncode == 3


def test_nobody_reads(tmp_path: Path) -> None:
    make_lane(tmp_path / "outbox", segments=1)
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [*MB, "check", "outbox"], cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (3, b"")


@pytest.mark.parametrize("arguments", [["outbox"], ["outbox", "--json"], ["missing"], ["--help"], ["outbox", "--no"]])
def test_a_full_disk_behind_its_output_is_unknown(tmp_path: Path, arguments: list[str]) -> None:
    make_lane(tmp_path / "outbox", segments=1)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*MB, "check", *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (3, b"")


# ---- pure

DEFAULT = Rules({}, within=None)
LANE = LaneStatus(
    name="main", mode="buffer", state="live", accepted=10, delivered=10, pruned=0, expired=0, dead=0, purged=0, lost=0,
    resident_messages=0, resident_bytes=0, segments=0, oldest_age_s=None, last_error=None, heartbeat_age_s=0.1,
    seek=SeekPosition(1, 11, 128),
)  # fmt: skip


def judged(status: LaneStatus, rules: Rules = DEFAULT, **reading: Any) -> Check:
    return judge(Reading("/srv/outbox", (LaneReading(status, limit=1_000),), **reading), {}, rules, now=100.0)


@pytest.mark.parametrize(
    ("change", "grade", "said"),
    [
        ({}, Grade.OK, "outbox: live, nothing waits"),
        ({"state": "blocked", "state_reason": "no\ntopic | x"}, Grade.CRITICAL, "outbox: blocked: no topic ¦ x"),
        ({"state": "disk-error", "last_error": "EIO"}, Grade.CRITICAL, "outbox: disk-error: EIO"),
        (
            {"state": "stale", "heartbeat_age_s": None},
            Grade.CRITICAL,
            "outbox: a process holds it and gives no sign of",
        ),
        ({"state": "stale", "heartbeat_age_s": 12.0}, Grade.WARNING, "outbox: no sign of life for 12s"),
        ({"state": "dead", "heartbeat_age_s": 9e9}, Grade.OK, "outbox: dead, nothing waits"),
        ({"state": "dead", "resident_messages": 1}, Grade.WARNING, "outbox: no process has it, and 1 message waits"),
        ({"state": "paused", "state_since": 40.0}, Grade.WARNING, "outbox: paused for 1m"),
        ({"state": "live", "state_since": 40.0}, Grade.OK, "outbox: live, nothing waits"),
        ({"failures": 3, "failing_since": 60.0}, Grade.OK, "outbox: live"),
    ],
)
def test_states(change: dict[str, Any], grade: Grade, said: str) -> None:
    rules = Rules(
        {
            "heartbeat": Thresholds(Bound(10), Bound(60)),
            "not-live": Thresholds(Bound(60)),
            "error": Thresholds(Bound(300)),
        },
        within=None,
    )
    found = judged(replace(LANE, **change), rules)
    assert found.grade == grade
    assert line(found.grade, text_of([found])).startswith(f"MB {grade.name} - {said}")


@pytest.mark.parametrize(
    ("dead", "kept", "lately", "value", "said"),
    [
        (3, 3, 3, 3, "3 dead letters, rejected within 1d"),
        (9, 5, 3, 3, "5 dead letters, of which at most 3 were rejected within 1d"),
        (9, 1, 3, 1, "1 dead letter, of which at most 1 was rejected within 1d"),
        (9, 5, 0, 0, "live, nothing waits"),
        (9, 0, 9, 0, "live, nothing waits"),
        (2, None, 9, 2, "2 messages rejected within 1d"),
    ],
)
def test_dead_letters_are_told_for_what_they_are(
    dead: int, kept: int | None, lately: int, value: int, said: str
) -> None:
    rules = Rules({"dead": Thresholds(Bound(1))}, within=86_400.0)
    status = replace(LANE, accepted=10 + dead, dead=dead, dead_letters=kept)
    found = judge(Reading("/srv/outbox", (LaneReading(status),)), {"main": {"dead": lately}}, rules, now=100.0)
    assert text_of([found]) == f"outbox: {said}"
    assert [measure.value for measure in found.lanes[0].measures if measure.name == "dead"] == [value]


def test_percent_of_a_limit_that_is_not_known_is_no_threshold() -> None:
    rules = Rules({"size": Thresholds(Bound(50, percent=True), Bound(10))}, within=None)
    status = replace(LANE, resident_bytes=9)
    assert judge(Reading("/b", (LaneReading(status),)), {}, rules, 0.0).grade == Grade.OK
    assert judge(Reading("/b", (LaneReading(status, limit=18),)), {}, rules, 0.0).grade == Grade.WARNING


@given(st.lists(st.sampled_from(Grade)))
def test_what_is_critical_counts_more_than_what_is_not_known(grades: list[Grade]) -> None:
    order: Callable[[Grade], int] = [Grade.OK, Grade.WARNING, Grade.UNKNOWN, Grade.CRITICAL].index
    assert order(worst(grades)) == max(map(order, grades), default=0)


@given(
    name=st.text(min_size=1), state=st.sampled_from(STATES), reason=st.text(), error=st.none() | st.text(),
    problems=st.lists(st.text()), age=st.none() | st.floats(0, 1e12),
)  # fmt: skip
def test_whatever_stands_there_it_is_one_line_with_readable_numbers(
    name: str, state: str, reason: str, error: str | None, problems: list[str], age: float | None
) -> None:
    status = replace(
        LANE, name=name, state=state, state_reason=reason, last_error=error, oldest_age_s=age, resident_messages=3,
        failures=1, failing_since=1.0,
    )  # fmt: skip
    rules = Rules({each: Thresholds(Bound(0), Bound(0)) for each in ("oldest", "error", "heartbeat")}, within=None)
    found = judged(status, rules, problems=tuple(problems))
    output = line(found.grade, text_of([found]), performance_of([found]))
    assert output.isprintable()
    words, _, numbers = output.partition(" | ")
    assert "|" not in words + numbers
    assert len(DATUM.findall(numbers)) == 13
    assert DATUM.sub("", numbers).strip() == ""
