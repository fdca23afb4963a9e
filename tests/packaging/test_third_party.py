"""Other people's packages: what `mb new-provider` makes, and an example, built as wheels and installed beside ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from email.message import Message
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, base_requirements, copy_distributions

EXAMPLE = ROOT / "tests" / "third_party" / "acme_dropfolder"
TEN = 'buffer.write_many("orders", [f"paid {number}" for number in range(10)])\n    buffer.flush(60)'
PROGRAM = f"""
from mbframework import MessageBuffer
with MessageBuffer("outbox", "drop:inbox", observers=["acme-tally"]) as buffer:
    {TEN}
"""


def run(*command: str | Path, cwd: Path, status: int = 0, **environment: str) -> str:
    """What the command printed. Nothing of this environment's settings reaches it but what is given."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def build(project: Path, output: Path) -> Path:
    """Its wheel; hatchling leaves nothing among the sources."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output, project, cwd=project)
    (wheel,) = output.glob("*.whl")
    return wheel


def with_requirements(*names: str) -> set[str]:
    """These distributions and what they require without extras, as far as it is installed here."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        todo += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return found


@pytest.fixture
def beside(wheel: Path, metadata: Message, tmp_path: Path) -> Path:
    """The bin folder of a fresh environment that has our wheel, what mbtui needs, and the example's wheel."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel), str(build(EXAMPLE, tmp_path / "dist"))], check=True, timeout=100)
    copy_distributions(python, *with_requirements(*base_requirements(metadata), "textual", "watchdog"))
    return folder / "bin"


def test_an_example_is_found_used_and_shown_without_a_change_of_ours(beside: Path, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    printed = json.loads(run(beside / "mb", "providers", "--json", cwd=tmp_path))
    assert printed["schema"] == 1
    listed = {one["name"]: one for one in printed["providers"]}
    assert {name: listed["drop"][name] for name in ("distribution", "version", "status", "api")} == {
        "distribution": "acme-dropfolder",
        "version": "1.4",
        "status": "ok",
        "api": 1,
    }
    assert "suffix: text; default .msg" in run(beside / "mb", "providers", "drop", cwd=tmp_path)
    assert run(beside / "mb", "providers", "--check", "drop:inbox", cwd=tmp_path).startswith("ok  drop:inbox")
    run(beside / "python", "-c", PROGRAM, cwd=tmp_path)
    files = sorted((tmp_path / "inbox").iterdir())
    assert [file.read_text() for file in files] == [f"paid {number}" for number in range(10)]
    assert (tmp_path / "outbox.tally").read_text() == "10\n"
    shown = run(beside / "mbtui", "--once", "outbox", cwd=tmp_path)
    assert "drop:inbox" in shown
    assert re.search(r"OUT +\S+ msg/s · total 10\b", shown), shown
    assert re.search(r"LOSS +nothing lost", shown), shown

    # The same package, as if written for another version of the interface: in clear words wherever it is asked for.
    (module,) = beside.parent.glob("lib/python3*/site-packages/acme_dropfolder/__init__.py")
    good = module.read_text()
    # What was compiled counts as current within the second.
    shutil.rmtree(module.parent / "__pycache__", ignore_errors=True)
    for version, words in (
        ("2", "version 2 of the plugin interface, newer than version 1, .* pip install --upgrade mbframework"),
        ("0", "version 0 of the plugin interface, older than version 1, .* pip install --upgrade acme-dropfolder"),
    ):
        module.write_text(good.replace("MBFRAMEWORK_API = 1", f"MBFRAMEWORK_API = {version}"))
        for command in (("send", "other", "t", "--provider", "drop:inbox"), ("providers", "--check", "drop:inbox")):
            said = run(beside / "mb", *command, cwd=tmp_path, status=2)
            assert re.search(rf"'drop' \(acme-dropfolder 1\.4\) was written for {words}", said), said
        assert re.search(words, run(beside / "mb", "providers", cwd=tmp_path))
        assert not (tmp_path / "other").exists()


def test_a_new_provider_passes_its_own_tests_types_and_lint_and_is_ready_to_publish(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    # Made by the program of the wheel, which has the templates.
    run(installed / "mb", "new-provider", "acme-queue", "project", cwd=tmp_path)
    project = tmp_path / "project"
    for tool in (("ruff", "check"), ("ruff", "format", "--check"), ("mypy", f"--cache-dir={tmp_path / 'types'}")):
        # Without an installation: src is on the path, as an editable one would put it there.
        run(sys.executable, "-m", *tool, cwd=project, MYPYPATH="src", RUFF_CACHE_DIR=str(tmp_path / "lint"))
    built = build(project, tmp_path / "dist")
    site = tmp_path / "site"
    pip = ("pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site)
    run(sys.executable, "-m", *pip, wheel, built, cwd=tmp_path)
    said = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", cwd=project, PYTHONPATH=str(site))
    assert re.search(r"^TestAcmeQueue: (\d+) rules kept, 0 broken, ", said, re.MULTILINE), said
    assert "passed" in said
    # Whatever a provider of this kind can be asked was asked.
    assert "take_down" not in said
    assert "freeze" not in said
    (entry,) = site.glob("acme_queue_provider-*.dist-info/entry_points.txt")
    assert entry.read_text().split() == ["[mbframework.providers]", "acme-queue", "=", "acme_queue_provider"]
