"""The extension in a wheel: there where a compiler is, fit for every CPython from 3.11 on, and missed by nobody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mbframework_kafka import speedups as kafka_speedups

from hatch_build import MODULES
from mbframework import speedups
from tests.packaging.conftest import ROOT

EXTENSION = "mbframework/_speedups.abi3.so"
#: Kafka's part of it, without its client library.
KAFKA = "import mbframework_kafka._speedups"
has_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc").split()[0]) is None,
    reason="no C compiler: install one (Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev)",
)


def build_with(output: Path, source: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(source)]
    environment = {name: value for name, value in os.environ.items() if name != speedups.VARIABLE} | variables
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)


def other_pythons() -> list[Any]:
    """From 3.11 on, beside the version that runs this: on the path, or kept by pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    found = []
    for minor in range(11, 31):
        places = [shutil.which(f"python3.{minor}"), *sorted(map(str, kept.glob(f"3.{minor}.*/bin/python3.{minor}")))]
        told = next((text for place in places if place and (text := about(place))), None)
        if told is None or minor == sys.version_info.minor:
            continue
        python, headers = told
        why = f"python3.{minor} has no headers: install python3.{minor}-dev"
        found.append(pytest.param(python, id=f"3.{minor}", marks=pytest.mark.skipif(not headers, reason=why)))
    only = "there is no other Python from 3.11 on: install one, and its headers (python3.12 python3.12-dev)"
    return found or [pytest.param("", marks=pytest.mark.skip(reason=only))]


def about(python: str) -> tuple[str, bool] | None:
    """Where an interpreter really is, and whether a C program can be compiled for it; None where it does not run."""
    program = "import sys, sysconfig; print(sys.executable, sysconfig.get_path('include'), sep='\\n')"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        return None
    executable, headers = done.stdout.splitlines()
    return executable, Path(headers, "Python.h").is_file()


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@has_compiler
def test_the_wheel_holds_the_extension_and_serves_later_pythons(wheel: Path) -> None:
    assert {name for name in names_in(wheel) if name.endswith(".so")} == MODULES.keys()
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


@has_compiler
@pytest.mark.parametrize("python", other_pythons())
def test_every_python_uses_our_extension_and_can_compile_it(python: str, wheel: Path, tmp_path: Path) -> None:
    """One wheel serves all, and nobody needs one."""
    package = tmp_path / "package"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(package)
    # hatchling and what mbframework requires are pure Python.
    path = os.pathsep.join((str(package), sysconfig.get_path("purelib")))

    def run(program: str) -> str:
        done = subprocess.run(
            [python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
            env=os.environ | {"PYTHONPATH": path, speedups.VARIABLE: "require"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    writes = (
        f"{KAFKA}\n"
        "from mbframework import MessageBuffer\n"
        "with MessageBuffer('outbox', close_timeout=0) as buffer:\n"
        "    print(buffer.write('t', b'v'), type(MessageBuffer.write).__name__)\n"
    )
    assert run(writes) == "1 method_descriptor\n"
    for name in MODULES:
        (package / name).unlink()
    run(
        f"import sys; sys.path.append({str(ROOT)!r}); from pathlib import Path; from hatch_build import *;"
        f" compile_extension(Path({str(ROOT / 'native')!r}), Path({str(package)!r}))"
    )
    assert run(writes) == "2 method_descriptor\n"


def test_without_a_compiler_the_wheel_is_a_pure_one(tmp_path: Path) -> None:
    """Also where an extension lies about in the source tree, as after an editable install."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source / name)
    for name in ("mbframework", "providers", "tui", "native"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / EXTENSION).write_bytes(b"left behind")
    (source / "providers" / "mbframework_kafka" / "_speedups.abi3.so").write_bytes(b"left behind")
    done = build_with(tmp_path / "pure", source, CC="/bin/false")
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "plain Python" in line]
    assert said == ["mbframework: plain Python, without the extension in C: /bin/false ended with 1"]
    (wheel,) = (tmp_path / "pure").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names_in(wheel))
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
    for source, build in (("speedups.c", speedups.BUILD), ("kafka.c", kafka_speedups.BUILD)):
        assert f"#define MB_BUILD {build}" in (ROOT / "native" / source).read_text().splitlines()
