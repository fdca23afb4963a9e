"""``mb new-provider``: what it makes for any name, and what it refuses; tests/packaging tries the project itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Run

LONGEST = "a-name-of-just-thirty-letters-"[:29] + "x"


@pytest.mark.parametrize("name", ["q", LONGEST])
def test_short_and_long_names_fit_into_every_file(mb: Run, tmp_path: Path, name: str) -> None:
    done = mb("new-provider", name, "made")
    assert done.returncode == 0, done.stderr
    made = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "made").rglob("*") if path.is_file())
    assert sorted(done.stdout.decode().split()) == made
    project = tomllib.loads((tmp_path / "made/pyproject.toml").read_text())
    assert project["project"]["entry-points"]["mbframework.providers"] == {name: f"{name.replace('-', '_')}_provider"}
    for path in (tmp_path / "made").rglob("*.py"):
        ast.parse(path.read_text())
    for command in (("format", "--check"), ("check", "--no-cache")):
        done_too = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "made"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done_too.returncode == 0, done_too.stdout


def test_the_names_of_folder_and_package_follow(mb: Run, tmp_path: Path) -> None:
    assert mb("new-provider", "acme-queue").returncode == 0
    assert (tmp_path / "acme-queue-provider/src/acme_queue_provider/provider.py").is_file()
    assert mb("new-provider", "acme", "--package", "acme_messages").returncode == 0
    assert (tmp_path / "acme-messages/src/acme_messages/py.typed").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Acme"], "'Acme' cannot be the name of a provider"),
        (["../x"], "cannot be the name of a provider"),
        (["\x1b[2J"], r"'\x1b[2J' cannot be"),
        (["a" * 31], "at most 30"),
        (["kafka"], "there is a provider 'kafka' already (see: mb providers kafka)"),
        (["acme", "--package", "mbframework_acme"], "belongs to somebody else"),
        (["acme", "--package", "json"], "belongs to somebody else"),
        (["acme", "--package", "class"], "cannot be the name of a package"),
        (["acme", "--package", "a/b"], "cannot be the name of a package"),
        (["acme", ""], "'DIR' is empty"),
        (["acme", "full"], "full exists, and is not an empty folder; nothing was written"),
        (["acme", "full/file"], "full/file exists, and is not an empty folder"),
        (["acme", "full/file/below"], "full/file/below: Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_it_cannot_do_is_one_line_and_nothing_is_made(
    mb: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = mb("new-provider", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert said in line
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/file"]
