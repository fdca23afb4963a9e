"""The rules in tests/conftest.py do fail what they should fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

TESTS = """
import os, threading
import pytest

release = threading.Event()

def test_thread_left():
    threading.Thread(target=release.wait, name="forgotten", daemon=True).start()

def test_file_left():
    os.open(os.devnull, os.O_RDONLY)

def test_tidy():
    release.set()
    thread = threading.Thread(target=release.wait)
    thread.start()

def test_broker_thread_may_stay():
    threading.Thread(target=threading.Event().wait, name="test-server-keeper-1", daemon=True).start()

@pytest.mark.skipif(True, reason="no Kafka here")
def test_needs_kafka(): ...

@pytest.mark.skipif(True, reason="no moon tonight")
def test_needs_moon(): ...

@pytest.mark.xfail(reason="Kafka cannot do this")
def test_known_to_fail(): raise AssertionError

@pytest.fixture(scope="session")
def redis_server(): ...

@pytest.mark.parametrize("number", range(20))
def test_shares_a_server(redis_server, number, worker_id):
    with open("processes", "a") as file:
        print(worker_id, file=file)
"""


@pytest.mark.parametrize("ci", [True, False])
def test_leaks_and_missing_kafka_fail(tmp_path: Path, ci: bool) -> None:
    source = CONFTEST.read_text()
    assert "GRACE_S = 30.0" in source
    (tmp_path / "conftest.py").write_text(source.replace("GRACE_S = 30.0", "GRACE_S = 1.0"))
    (tmp_path / "test_rules.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.skip('no Kafka', allow_module_level=True)\n")
    command = [sys.executable, "-m", "pytest", "-rA", "--import-mode=importlib", "--continue-on-collection-errors"]
    if ci:
        command += ["--numprocesses=2", "--dist=loadgroup"]
    env = {**os.environ, "CI": str(ci).lower()}
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    summary = run.stdout.rpartition("short test summary info")[2]
    failed = {line.partition(" - ")[0] for line in re.findall(r"^(?:FAILED|ERROR) (.*)$", summary, re.MULTILINE)}
    expected = {"test_rules.py::test_thread_left", "test_rules.py::test_file_left"}
    if ci:
        expected |= {"test_rules.py::test_needs_kafka", "test_module.py"}
    assert failed == expected, run.stdout + run.stderr
    assert "left behind: thread 'forgotten'" in run.stdout
    assert run.returncode == 1
    # One process has them all.
    assert len(set((tmp_path / "processes").read_text().split())) == 1
