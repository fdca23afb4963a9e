"""Buffers are found where the user stands, where the environment says, and where a process has one open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mbframework.monitor.find import VARIABLE, Found, find_buffers
from tests.engine.rig import program
from tests.monitor.lanes import make_lane

OPEN = """
buffer = MessageBuffer(sys.argv[1], None, **FAST)
print("open", flush=True)
input()
os._exit(0)
"""


def ours(tmp_path: Path) -> list[Found]:
    """Others may run on this machine."""
    return [found for found in find_buffers() if found.path.startswith(str(tmp_path))]


def test_they_are_found_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised: Callable[[float], float]
) -> None:
    here, named, opened = tmp_path / "here", tmp_path / "named", tmp_path / "opened \n\x1b[2J"
    make_lane(here, 1)
    make_lane(named, 1)
    monkeypatch.chdir(here)
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(named), "", str(here), str(tmp_path / "missing")]))
    with program(OPEN, opened) as engine:
        engine.line()
        assert ours(tmp_path) == [
            Found(str(here), "current directory"),
            Found(str(named), VARIABLE),
            Found(str(tmp_path / "missing"), VARIABLE),
            Found(str(opened), f"process {engine.process.pid}"),
        ]
        took = []
        for _ in range(20):
            begun = time.perf_counter()
            find_buffers()
            took.append(time.perf_counter() - begun)
        # Typically a few milliseconds; generous, for a machine that does other things as well.
        assert min(took) < promised(0.1)
        engine.kill()


def test_a_directory_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setenv(VARIABLE, f"relative{os.pathsep}{tmp_path / 'other'}")
    (tmp_path / "gone").rmdir()
    assert ours(tmp_path) == [Found(str(tmp_path / "other"), VARIABLE)]
    monkeypatch.chdir(tmp_path)
