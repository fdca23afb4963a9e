"""``mb export`` and ``mb import``: what goes out comes back, bad lines are refused by number, and it is told how to go
on."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbframework import MessageBuffer
from mbframework.browse import Entry, Gap, LaneBrowser
from mbframework.errors import MessageError
from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.message import Header
from mbframework.spool.survey import survey
from mbframework.transfer import from_line, to_line, walk
from tests.browse.harm import HARMS, segments
from tests.cli.conftest import Run, Start
from tests.cli.tables import until, values
from tests.engine.rig import FAST

data = st.none() | st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
entries = st.builds(
    Entry,
    sequence=st.integers(1, 2**63 - 1),
    topic=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    key=data,
    value=data,
    value_size=st.just(0),
    headers=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), data), max_size=4),
    timestamp=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    partition=st.none() | st.integers(0, 2**31 - 1),
    accepted=st.integers(-(2**62), 2**62),
    size=st.just(0),
    segment=st.just(1),
    offset=st.just(4096),
    ordinal=st.just(0),
)


@given(entries)
def test_a_line_gives_the_message_back(entry: Entry) -> None:
    line = to_line(entry, "main")
    assert line.isascii()
    assert line.isprintable()
    parcel = from_line(line.encode())
    assert parcel == (
        entry.topic, entry.value, entry.key, tuple(entry.headers), entry.timestamp, entry.partition,
    )  # fmt: skip


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["topic", "value", "key", "value_base64", "headers", "timestamp", "schema", "x"]), inner),
).map(lambda facts: json.dumps(facts).encode()))  # fmt: skip
def test_any_other_line_is_refused_and_nothing_else_happens(line: bytes) -> None:
    with contextlib.suppress(MessageError):
        parcel = from_line(line)
        assert isinstance(json.loads(line), dict)
        assert parcel.topic


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"{", "no JSON"),
        (b"[1]", "list"),
        (b'{"topic": "t"}', "value is missing"),
        (b'{"value": "v"}', "topic or value"),
        (b'{"topic": "", "value": null}', "topic has 0 bytes"),
        (b'{"topic": "t", "vaule": "v"}', "did you mean 'value'"),
        (b'{"topic": "t", "value": 5}', "value is int"),
        (b'{"topic": "t", "value": "a", "value_base64": "YQ=="}', "at once"),
        (b'{"topic": "t", "value_base64": "YQ="}', "value_base64"),
        (b'{"topic": "t", "value": "\\ud800"}', "UTF-8"),
        (b'{"topic": "t", "value": "a", "value": "b"}', "twice"),
        (b'{"topic": "t", "value": NaN}', "NaN"),
        (b'{"topic": "t", "value": "a", "headers": [["n"]]}', "header 0"),
        (b'{"topic": "t", "value": "a", "headers": [["n", {"hex": "00"}]]}', "header 0"),
        (b'{"topic": "t", "value": "a", "timestamp": 1.5}', "timestamp"),
        (b'{"topic": "t", "value": "a", "partition": -1}', "partition"),
        (b'{"schema": 2, "topic": "t", "value": "a"}', "schema 2"),
        (b"[" * 100_000, "no JSON"),
        (b"1" * 10_000, "no JSON"),
    ],
)
def test_a_refusal_says_what_is_wrong(line: bytes, word: str) -> None:
    with pytest.raises(MessageError, match=word):
        from_line(line)


Sent = tuple[str, bytes | None, bytes | None, list[Header], int | None, int | None]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, min_size=1, max_size=20))
def test_export_import_export(mb: Run, tmp_path_factory: pytest.TempPathFactory, messages: list[Entry]) -> None:
    place = tmp_path_factory.mktemp("transfer")
    with MessageBuffer(place / "one") as buffer:
        for each in messages:
            buffer.write(each.topic, each.value, each.key, each.headers, each.partition, each.timestamp)
    exported = mb("export", str(place / "one"))
    assert exported.returncode == 0
    assert mb("import", str(place / "two"), stdin=exported.stdout).returncode == 0
    again = mb("export", str(place / "two"))
    plain = [[{n: v for n, v in json.loads(line).items() if n not in ("sequence", "accepted")}
              for line in done.stdout.splitlines()] for done in (exported, again)]  # fmt: skip
    assert plain[0] == plain[1]
    assert len(plain[0]) == len(messages)
    browser = LaneBrowser(str(place / "two" / "main"))
    found = [item for item in browser.page(1, 100) if isinstance(item, Entry)]
    assert [(e.topic, e.key, e.value, e.headers, e.timestamp, e.partition) for e in found] == [
        (e.topic, e.key, e.value, e.headers, e.timestamp, e.partition) for e in messages
    ]


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        for number in range(100):
            buffer.write("t", b"%d" % number)
    return tmp_path / "outbox"


def exported(run: Run, *arguments: str) -> list[int]:
    done = run("export", "outbox", *arguments)
    assert done.returncode == 0, done.stderr
    return [int(json.loads(line)["value"]) for line in done.stdout.splitlines()]


def test_what_is_delivered_is_exported_only_when_asked_for(mb: Run, outbox: Path) -> None:
    with MessageBuffer(outbox, "fake://?rate=60", batch_messages=10, close_timeout=0) as buffer:
        until(lambda: buffer.status().delivered >= 20)
    waiting = exported(mb)
    assert 0 < len(waiting) <= 80
    assert waiting == list(range(100 - len(waiting), 100))
    assert exported(mb, "--from", "98") == [97, 98, 99]
    assert exported(mb, "--from", "90", "--to", "92") == [89, 90, 91]
    assert exported(mb, "--all")[-len(waiting) :] == waiting


def test_dead_letters_are_exported_with_their_reason_and_can_be_imported(mb: Run, outbox: Path, tmp_path: Path) -> None:
    with MessageBuffer(outbox, "fake://?reject=7") as buffer:
        buffer.flush(60)
    done = mb("export", "outbox", "--dead")
    letters = [json.loads(line) for line in done.stdout.splitlines()]
    assert [letter["value"] for letter in letters] == [str(n) for n in range(100) if "7" in str(n)]
    assert "7" in letters[0]["dead"]["reason"]
    assert mb("import", "outbox", "--provider", "sqlite:out.db", stdin=done.stdout).returncode == 0
    assert values(tmp_path / "out.db") == [letter["value"].encode() for letter in letters]
    assert mb("export", "outbox", "--dead", "--all").returncode == 2


def test_a_gap_is_told_and_the_rest_exported(mb: Run, outbox: Path) -> None:
    (segment,) = (outbox / "main").glob("P*.seg")
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"\x02\x00\x00\x0050") + 5] ^= 0xFF
    segment.write_bytes(raw)
    done = mb("export", "outbox")
    assert done.returncode == 1
    assert b"cannot be read" in done.stderr
    assert b"99 messages exported, 1 unreadable" in done.stderr
    assert [int(json.loads(line)["value"]) for line in done.stdout.splitlines()] == [n for n in range(100) if n != 50]


UNCOUNTED = ("the seek", "head and seek")


@pytest.fixture(scope="module")
def ten_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 messages in ten segments; value i begins with the number i."""
    directory = tmp_path_factory.mktemp("whole") / "outbox"
    with MessageBuffer(directory, segment_size="64KiB", total_size="4MiB") as buffer:
        for number in range(4000):
            buffer.write("t", b"%05d" % number + b"x" * 95)
    return directory


@pytest.mark.parametrize("harm", [name for name in HARMS if name not in UNCOUNTED])
@pytest.mark.parametrize("settled", [0, 1000])
def test_every_message_that_waits_is_exported_or_told_missing(
    ten_segments: Path, tmp_path: Path, harm: str, settled: int
) -> None:
    outbox = tmp_path / "outbox"
    shutil.copytree(ten_segments, outbox)
    if settled:
        _advance(outbox, settled)
    HARMS[harm](outbox)
    browser = LaneBrowser(str(outbox / "main"))
    items = list(walk(browser, settled + 1, None))
    there = [item for item in items if isinstance(item, Entry)]
    missing = sum(item.messages for item in items if isinstance(item, Gap))
    # Where the head is gone nothing tells how many there were; but nothing else is.
    assert len(there) + missing == 4000 - settled
    assert [int((item.value or b"")[:5]) + 1 for item in there] == [item.sequence for item in there]
    places = [(item.sequence, item.sequence) if isinstance(item, Entry) else (item.first, item.last) for item in items]
    assert all(last < first for (_, last), (first, _) in pairwise(places))


def _advance(outbox: Path, settled: int) -> None:
    """The first ``settled`` messages are delivered, and still on disk."""
    lane = str(outbox / "main")
    known = survey(Files(), lane)
    assert known.seek is not None
    ledger = Ledger.open(Files(), lane, known.seek, known.seek_slot, exists=True)
    ledger.advance(settled + 1, settled, "delivered")
    ledger.close()


@pytest.mark.parametrize(
    ("removed", "arguments", "lines", "told"),
    [
        ([-1], [], 3627, b"lane main: 373 messages from 3628 to 4000 cannot be read: "),
        ([8, 9], ["--all"], 3224, b"lane main: 776 messages from 3225 to 4000 cannot be read: "),
        (range(10), [], 0, b"lane main: 4,000 messages from 1 to 4000 cannot be read: "),
        ([0], [], 3597, b"lane main: 403 messages from 1 to 403 cannot be read: "),
        ([0], ["--from", "401", "--to", "405"], 2, b"lane main: 3 messages from 401 to 403 cannot be read: "),
        ([4], ["--from", "1700", "--to", "1710"], 0, b"lane main: 11 messages from 1700 to 1710 cannot be read: "),
        ([-1], ["--from", "3990"], 0, b"lane main: 11 messages from 3990 to 4000 cannot be read: "),
        ([-1], ["--to", "3000"], 3000, b""),
        ([-1], ["--to", "3629"], 3627, b"lane main: 2 messages from 3628 to 3629 cannot be read: "),
    ],
)
@pytest.mark.parametrize("left", ["nothing", "a pipe"])
def test_missing_segments_are_told_with_a_number(
    mb: Run, ten_segments: Path, tmp_path: Path, removed: Sequence[int], arguments: list[str], lines: int, told: bytes,
    left: str,
) -> None:  # fmt: skip
    shutil.copytree(ten_segments, tmp_path / "outbox")
    found = segments(tmp_path / "outbox")
    for number in removed:
        found[number].unlink()
        if left == "a pipe":
            os.mkfifo(found[number])
    done = mb("export", "outbox", *arguments)
    assert len(done.stdout.splitlines()) == lines
    assert done.returncode == (1 if told else 0)
    assert told in done.stderr
    assert (b"cannot be read" in done.stderr) == bool(told)


@pytest.mark.parametrize("mode", ["always", "buffer"])
def test_of_a_running_lane_nothing_is_told_missing(mb: Run, tmp_path: Path, mode: str) -> None:
    """Neither what is only in memory nor what is delivered and removed while it is looked at."""
    small = FAST | {"segment_size": "64KiB", "total_size": "16MiB", "min_free": 0, "batch_messages": 20}
    with MessageBuffer(tmp_path / "outbox", "fake://?rate=2000", mode=mode, **small) as buffer:
        stop = threading.Event()

        def write() -> None:
            while not stop.wait(0.01):
                for _ in range(0 if buffer.status().resident > 2000 else 100):
                    buffer.write("t", b"x" * 200)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            until(lambda: buffer.status().delivered)
            browser, looks = LaneBrowser(str(tmp_path / "outbox/main")), 0
            delivered = buffer.status().delivered
            while buffer.status().delivered < delivered + 2000 or looks < 20:
                gaps = [item for item in walk(browser, browser.settled().next, None) if isinstance(item, Gap)]
                assert gaps == []
                looks += 1
            assert mb("export", "outbox").returncode == 0
        finally:
            stop.set()
            writer.join()


def test_a_bad_line_ends_an_import_and_it_can_go_on_behind_it(mb: Run, tmp_path: Path) -> None:
    lines = [b'{"topic": "t", "value": "%d"}' % number for number in range(10)]
    lines[6] = b'{"topic": "t"}'
    (tmp_path / "two words.jsonl").write_bytes(b"\n".join(lines))
    done = mb("import", "outbox", "two words.jsonl")
    assert done.returncode == 1
    assert b"line 7: topic or value is missing" in done.stderr
    assert b"6 messages accepted" in done.stderr
    _, command = done.stderr.decode().split("; to go on: mb ")
    assert exported(mb) == [0, 1, 2, 3, 4, 5]
    lines[6] = b'{"topic": "t", "value": "6"}'
    (tmp_path / "two words.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert mb(*shlex.split(command)).returncode == 0
    assert exported(mb) == list(range(10))


def test_mistakes_are_one_line(mb: Run, outbox: Path) -> None:
    for arguments in (
        ["import", "outbox", "missing.jsonl"], ["export", "missing"], ["export", "outbox", "--lane", "\x1b[31m"],
        ["import", "outbox", "--provider", "nothing://"],
    ):  # fmt: skip
        done = mb(*arguments)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
        assert b"\x1b" not in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_signal_ends_an_import_behind_what_was_read(mb: Run, start: Start) -> None:
    process = start("import", "outbox")
    assert process.stdin is not None
    process.stdin.write(b'{"topic": "t", "value": "0"}\n')
    process.stdin.flush()
    until(lambda: b"1" in mb("export", "outbox").stderr.split(b" ")[:1])
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"1 message accepted" in told
    assert b"--from-line 2" in told
    assert exported(mb) == [0]


def test_a_reader_that_goes_away_ends_an_export(start: Start, outbox: Path) -> None:
    with MessageBuffer(outbox) as buffer:
        for _ in range(200):
            buffer.write("t", b"x" * 10_000)
    process = start("export", "outbox")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(60)
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
