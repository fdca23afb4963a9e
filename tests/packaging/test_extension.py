"""The extension in a wheel: there where a compiler is, fit for every CPython from 3.11 on, and missed by nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mbframework import speedups
from tests.packaging.conftest import ROOT

EXTENSION = "mbframework/_speedups.abi3.so"
has_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc").split()[0]) is None,
    reason="no C compiler: install one (Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev)",
)


def build_with(output: Path, source: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(source)]
    environment = {name: value for name, value in os.environ.items() if name != speedups.VARIABLE} | variables
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@has_compiler
def test_the_wheel_holds_the_extension_and_serves_later_pythons(wheel: Path) -> None:
    assert EXTENSION in names_in(wheel)
    assert not any(name.endswith((".c", ".h")) for name in names_in(wheel))
    assert "-cp311-abi3-" in wheel.name
    pytest.importorskip("abi3audit", reason="no abi3audit: pip install --editable '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-m", "abi3audit", "--strict", "--summary", str(wheel)], capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    assert "0 ABI version mismatches and 0 ABI violations found" in said


@has_compiler
def test_what_is_installed_uses_it(installed: Path, tmp_path: Path) -> None:
    program = (
        "from mbframework import MessageBuffer, speedups\n"
        "with MessageBuffer('outbox', close_timeout=0) as buffer:\n"
        "    print(buffer.write('t', b'v'), repr(speedups.why_plain), type(MessageBuffer.write).__name__)\n"
    )
    told = {
        path: subprocess.run(
            [str(installed / "python"), "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
            timeout=60, env={speedups.VARIABLE: path},
        )
        for path in ("require", "off", "of")
    }  # fmt: skip
    assert told["require"].stdout == "1 '' method_descriptor\n", told["require"].stderr
    assert told["off"].stdout.split()[1:] == ["'MBFRAMEWORK_EXTENSION=off'", "function"], told["off"].stderr
    assert "MBFRAMEWORK_EXTENSION='of'; expected auto, off or require" in told["of"].stderr


def test_without_a_compiler_the_wheel_is_a_pure_one(tmp_path: Path) -> None:
    """Also where an extension lies about in the source tree, as after an editable install."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source / name)
    for name in ("mbframework", "providers", "tui", "native"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / EXTENSION).write_bytes(b"left behind")
    done = build_with(tmp_path / "pure", source, CC="/bin/false")
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "plain Python" in line]
    assert said == ["mbframework: plain Python, without the extension in C: /bin/false ended with 1"]
    (wheel,) = (tmp_path / "pure").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert EXTENSION not in names_in(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    program = "from mbframework import MessageBuffer, speedups\nprint(speedups.__file__, speedups.why_plain)\n"
    program += "with MessageBuffer('outbox', close_timeout=0) as buffer: print(buffer.write('t', b'v'))\n"
    variables = {"PYTHONPATH": str(tmp_path / "unpacked"), speedups.VARIABLE: ""}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
        env=os.environ | variables,
    )  # fmt: skip
    assert ran.stdout.startswith(f"{tmp_path}/unpacked/")
    assert "there is no extension that this interpreter can load" in ran.stdout
    assert ran.stdout.endswith("\n1\n")


def test_off_compiles_nothing_and_require_accepts_nothing_less(tmp_path: Path) -> None:
    done = build_with(tmp_path / "off", CC="/bin/false", MBFRAMEWORK_EXTENSION="off")
    assert done.returncode == 0, done.stderr
    assert "plain Python" not in done.stdout + done.stderr
    assert [wheel.name[-16:] for wheel in (tmp_path / "off").iterdir()] == ["py3-none-any.whl"]
    done = build_with(tmp_path / "require", CC="/bin/false", MBFRAMEWORK_EXTENSION="require")
    assert done.returncode != 0
    assert "the extension cannot be built: /bin/false ended with 1" in done.stdout + done.stderr


def test_the_extension_and_the_package_agree_on_the_build() -> None:
    lines = (ROOT / "native" / "speedups.c").read_text().splitlines()
    assert f"#define MB_BUILD {speedups.BUILD}" in lines
