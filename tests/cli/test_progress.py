"""The bar of what may take longer: as far as it can be known, and never farther."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import IO

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from tests.cli.conftest import MB, environment
from tests.engine.rig import FAST

LINES = b"".join(json.dumps({"topic": "t", "value": "x" * 1000}).encode() + b"\n" for _ in range(600))


def on_a_terminal(cwd: Path, *arguments: str, stdin: bytes | IO[bytes] = b"") -> str:
    """What ``mb`` writes to stderr, a terminal; its stdout is a pipe, and so is stdin unless a file is given."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*MB, *arguments], cwd=cwd, env=environment({"TERM": "xterm"}), stdout=subprocess.PIPE, stderr=theirs,
        stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            process.communicate(stdin if isinstance(stdin, bytes) else None, timeout=30)
            shown = b""
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:
            # Linux says "input/output error" at the end of a terminal without a program.
            pass
        finally:
            os.close(ours)
            process.kill()
    assert process.returncode == 0, shown
    return shown.decode()


@pytest.mark.parametrize("command", [("import", "outbox"), ("send", "outbox", "t")])
def test_of_a_pipe_nobody_knows_how_much_there_is(command: tuple[str, ...], tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, *command, stdin=LINES)
    assert "%" not in shown
    assert "KiB" in shown
    assert "600 messages accepted" in shown
    (tmp_path / "lines").write_bytes(LINES)
    with (tmp_path / "lines").open("rb") as file:
        shown = on_a_terminal(tmp_path, *command, stdin=file)
    assert "100%" in shown
    assert "600 messages accepted" in shown


def test_an_export_of_dead_letters_tells_how_far_it_is(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.reject_when(lambda message: "no such column")
    with MessageBuffer(tmp_path / "outbox", provider, **FAST) as buffer:
        buffer.write_many("t", [b"bad"] * 60)
        buffer.flush(60)
    shown = on_a_terminal(tmp_path, "export", "outbox", "--dead")
    assert "lane main" in shown
    assert "100%" in shown
    assert "60 messages exported" in shown
