"""``mb peek``: one message with everything that is known of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from tests.browse.harm import overwrite
from tests.cli.conftest import Run
from tests.cli.tables import until


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write(
            "orders", '{"a": [1, 2]}', key="k", headers=[("h", b"1"), ("h", None)], partition=3, timestamp=10**18
        )
        buffer.write("orders", b"\x00\xff\x1b[31m")
        buffer.write("orders", None)
        buffer.write("orders", "line one\nline \x1b[31mtwo")
        buffer.write("orders", b"x" * 200_000)
    return tmp_path / "outbox"


def test_every_fact(mb: Run, outbox: Path) -> None:
    done = mb("peek", "outbox")
    assert done.returncode == 0
    text = done.stdout.decode()
    for part in (
        "1 (next)", "topic       orders", "k (1B)", "2001-09-09T01:46:40.000Z", "partition   3", "h = 1", "h = (none)",
        "segment 1, offset 4096, ordinal 0", '{"a": [1, 2]}',
    ):  # fmt: skip
        assert part in text
    facts = json.loads(mb("peek", "outbox", "--at", "2", "--json").stdout)
    assert (facts["standing"], facts["value_base64"], facts["schema"]) == ("pending", "AP8bWzMxbQ==", 1)


def test_forms_of_a_value(mb: Run, outbox: Path) -> None:
    assert mb("peek", "outbox", "--format", "json").stdout.decode().endswith('{\n  "a": [\n    1,\n    2\n  ]\n}\n')
    assert "00 ff 1b 5b 33 31 6d" in mb("peek", "outbox", "--at", "2").stdout.decode()
    for form in ("text", "json"):
        done = mb("peek", "outbox", "--at", "2", "--format", form)
        assert done.returncode == 2
        assert b"--format" in done.stderr
    assert "a tombstone" in mb("peek", "outbox", "--at", "3").stdout.decode()
    assert mb("peek", "outbox", "--at", "4").stdout.decode().endswith("line one\nline \\x1b[31mtwo\n")
    cut = mb("peek", "outbox", "--at", "5")
    assert len(cut.stdout) < 70_000
    assert b"--all" in cut.stderr
    assert len(mb("peek", "outbox", "--at", "5", "--all").stdout) > 200_000


def test_what_is_not_there_any_more(mb: Run, outbox: Path) -> None:
    with MessageBuffer(outbox, "fake://?rate=5", batch_messages=1, close_timeout=0) as buffer:
        until(lambda: buffer.status().delivered >= 1)
    assert "(delivered)" in mb("peek", "outbox", "--at", "1").stdout.decode()
    assert "(next)" in mb("peek", "outbox").stdout.decode()
    done = mb("peek", "outbox", "--at", "0")
    assert b"not on disk" in done.stderr
    nothing = mb("peek", "outbox", "--at", "1000")
    assert nothing.returncode == 1
    assert nothing.stdout == b""


def test_damage_is_passed_over_with_a_word(mb: Run, outbox: Path) -> None:
    (segment,) = (outbox / "main").glob("P*.seg")
    overwrite(segment, 4096, bytes(40))
    done = mb("peek", "outbox", "--at", "1")
    assert done.returncode in (0, 1)
    assert b"cannot be read" in done.stderr
