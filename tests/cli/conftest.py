"""``mb`` as its users run it: a process of its own, in a folder of its own, with nothing of this project in its
environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]
Start = Callable[..., "subprocess.Popen[bytes]"]

MB = (sys.executable, "-m", "mbframework")


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    ours = ("MBFRAMEWORK_", "NO_COLOR", "FORCE_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(extra or {})


@pytest.fixture
def mb(tmp_path: Path) -> Run:
    """``mb(*arguments, stdin=b"", env={})``: run it to its end."""

    def run(*arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        return subprocess.run(
            [*MB, *arguments], input=stdin, capture_output=True, cwd=tmp_path, env=environment(env), check=False,
            timeout=60,
        )  # fmt: skip

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start(*arguments, env={}, **popen)``: start it; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen([*MB, *arguments], cwd=tmp_path, env=environment(env), **pipes)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                # What was written to it and not sent is of no interest any more.
                with suppress(BrokenPipeError):
                    stream.close()
        process.wait()
