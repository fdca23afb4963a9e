"""What users install: the wheel, and an environment with nothing but it and its base requirements."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(output: Path, *options: str) -> list[Path]:
    command = [sys.executable, "-m", "build", *options, "--no-isolation", "--outdir", str(output), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(output.iterdir())


def base_requirements(metadata: Message) -> list[str]:
    required = metadata.get_all("Requires-Dist", [])
    return sorted(re.split(r"[<>=!~ ;\[]", line)[0] for line in required if "extra ==" not in line)


def copy_distributions(python: Path, *names: str) -> None:
    """Copy installed pure-Python distributions: quicker than a download, and needs no network."""
    (site_packages,) = python.parents[1].glob("lib/python3*/site-packages")
    for name in names:
        for file in distribution(name).files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = site_packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (built,) = build(tmp_path_factory.mktemp("wheel"), "--wheel")
    return built


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="session")
def installed(wheel: Path, metadata: Message, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment: the wheel and what it requires without extras, nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=100)
    copy_distributions(python, *base_requirements(metadata))
    return folder / "bin"


@pytest.fixture(scope="session")
def clone(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in a folder of its own, as git would clone it.

    Its ``.venv`` is the environment above, as if make had just made it: that would need the network.
    """
    folder = tmp_path_factory.mktemp("clone") / "mbframework"
    ignored = [line.strip("/").rpartition("/")[2] for line in (ROOT / ".gitignore").read_text().split()]
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", *ignored))
    (folder / ".venv").symlink_to(installed.parent)
    for stamp in (".made", ".installed"):
        (folder / ".venv" / stamp).touch()
    return folder
