"""What holds for every command: usage, errors, colours, pipes, and what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import mbframework
from mbframework.cli import COMMANDS, main
from tests.cli.conftest import MB, Run, environment


def test_help_names_every_command_and_the_version_is_the_packages() -> None:
    listed = CliRunner().invoke(main, ["--help"])
    assert listed.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name}" in listed.stdout
        without = ("bench", "providers", "demo", "simulate", "completion")
        assert "DIR" in CliRunner().invoke(main, [name, "-h"]).stdout or name in without
    assert CliRunner().invoke(main, ["--version"]).stdout == f"mbframework, version {mbframework.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["status"], ["send", "d", "t", "--mode", "x"], ["demo", "-x"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["status", "."], {}, "is not a buffer"),
        (["status", "missing"], {}, "is not a directory"),
        (["drain", "missing", "--provider", "file:x"], {}, "is not a directory"),
        (["drain", "missing"], {}, "MBFRAMEWORK_PROVIDER"),
        (["send", "no/such/parent", "t"], {}, "make the parent directory"),
        (["send", "outbox", ""], {}, "topic"),
        (["send", "outbox", "t", "--key-separator", ""], {}, "--key-separator is empty"),
        (["send", "outbox", "t", "--provider", "sqlit:x.db"], {}, "did you mean 'sqlite'?"),
        (["send", "outbox", "t", "--timeout", "soon"], {}, "Error: --timeout: 'soon'"),
        (["send", "outbox", "t", "--timeout", "-3"], {}, "--timeout: '-3': expected a time from 0"),
        (["send", "outbox", "t", "--mode", ""], {}, "Error: --mode: ''"),
        (["send", "outbox", "t", "--provider", "sqlite"], {}, "Error: --provider: expected a URL"),
        (["send", "outbox", "t", "--provider", "sqlite:x?tabel=5"], {}, "Error: --provider: provider 'sqlite' has no "),
        (["send", "outbox", "t", "--config", ""], {}, "'--config' is empty"),
        (["status", ""], {}, "'DIR' is empty"),
        (["send", "", "t"], {}, "'DIR' is empty"),
        (["drain", "", "--provider", "file:x"], {}, "'DIR' is empty"),
        (["send", "outbox", "t"], {"MBFRAMEWORK_PROVIDER": "sqlit:x"}, "Error: environment: MBFRAMEWORK_PROVIDER: no "),
        (["drain", "."], {"MBFRAMEWORK_PROVIDER": "file:x?moed=5"}, "Error: environment: MBFRAMEWORK_PROVIDER: prov"),
        (["send", "outbox", "t", "--config", "missing.toml"], {}, "missing.toml"),
        (["send", "outbox", "t"], {"MBFRAMEWORK_SEGMENT_SIZE": "big"}, "MBFRAMEWORK_SEGMENT_SIZE"),
        (["providers", "quue"], {}, "quue"),
        (["demo", "--provider", "file:x"], {}, "cannot read back from 'file'"),
        (["demo", "--provider", "kafka://u:hunter2@h"], {}, "with a password or TLS"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_status_2_and_nothing_is_made(
    mb: Run, tmp_path: Path, arguments: list[str], env: dict[str, str], said: str
) -> None:
    done = mb(*arguments, env=env)
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    assert said in line
    assert "hunter2" not in line
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_as_well(mb: Run) -> None:
    done = mb("--debug", "status", ".")
    assert done.returncode == 2
    assert b"Traceback" in done.stderr
    assert done.stderr.endswith(b"it has no buffer.json\n")


def test_names_of_files_cannot_steer_the_terminal(mb: Run) -> None:
    done = mb("status", "\x1b[2J\udcff")
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr
    assert rb"\x1b[2J" in done.stderr


def test_a_reader_that_goes_away_ends_it_quietly(mb: Run, tmp_path: Path) -> None:
    assert mb("send", "outbox", "t", stdin=b"a\n").returncode == 0
    command = " ".join([*MB, "status", "outbox", "--json", "|", "true"])
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment(None), capture_output=True, check=False, timeout=60
    )
    assert done.stderr == b""


def test_only_a_terminal_without_no_color_gets_colours(mb: Run, tmp_path: Path) -> None:
    assert mb("send", "outbox", "t", stdin=b"a\n").returncode == 0
    assert b"\x1b" not in mb("status", "outbox").stdout

    def on_a_terminal(env: dict[str, str]) -> bytes:
        ours, theirs = os.openpty()
        subprocess.run(
            [*MB, "status", "outbox"], cwd=tmp_path, env=environment(env), stdout=theirs, check=True, timeout=60
        )
        os.close(theirs)
        found = b""
        try:
            while data := os.read(ours, 4096):
                found += data
        except OSError:
            # Linux says "input/output error" at the end of a terminal without a program.
            pass
        finally:
            os.close(ours)
        return found

    assert b"\x1b[" in on_a_terminal({"TERM": "xterm"})
    assert b"\x1b[" not in on_a_terminal({"TERM": "xterm", "NO_COLOR": "1"})


def test_status_imports_no_more_than_it_needs(mb: Run, tmp_path: Path) -> None:
    """Start-up is the larger part of what a monitoring script waits for."""
    assert mb("send", "outbox", "t", stdin=b"a\n").returncode == 0
    program = (
        "import json, sys\n"
        "from mbframework.cli import main\n"
        "main(['status', 'outbox', '--json'], standalone_mode=False)\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(None),
        capture_output=True,
        check=True,
        timeout=60,
    )
    loaded = set(json.loads(done.stderr))
    assert json.loads(done.stdout)["lanes"][0]["accepted"] == 1
    unwanted = {"sqlite3", "kafka", "textual", "asyncio", "ssl", "pluggy", "importlib.metadata", "tomllib"}
    assert loaded & unwanted == set()
    assert {"mbframework.engine", "mbframework.buffer", "mbframework.plugins"} & loaded == set()
    assert not [name for name in loaded if name.startswith("mbframework_")]


@pytest.mark.parametrize("command", ["mbframework status x", "mbframework --help", "mbtui --once x"])
def test_a_wrong_word_for_the_extension_is_one_line(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=tmp_path, env=environment({"MBFRAMEWORK_EXTENSION": "bogus"}),
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.endswith(b": MBFRAMEWORK_EXTENSION='bogus'; expected auto, off or require\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("mbframework", "click"),
        ("mbframework", "mbframework.cli.terminal"),
        ("mbframework", "mbframework.cli.send"),
        ("mbframework", "mbframework.plugins.source"),
        ("mbtui", "mbtui.arguments"),
        ("mbtui", "mbtui.starting"),
    ],
)
def test_ctrl_c_during_the_imports_ends_quietly(tmp_path: Path, program: str, module: str) -> None:
    interrupted = (
        "import os, runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = [{program!r}, 'send', 'outbox', 't']\n"
        f"runpy.run_module({program!r}, run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupted], cwd=tmp_path, env=environment(None), stdin=subprocess.DEVNULL,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []
