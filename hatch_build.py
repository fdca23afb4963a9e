"""Compiles the extension (native/) for the wheel, and for an editable install into the source tree.

Promises: without a compiler, with one that fails, or with an interpreter for which the extension is not made, the
result is a pure wheel and one line that says why. ``MBFRAMEWORK_EXTENSION=off`` builds none, ``require`` ends the build
with an error where there would be none. It is compiled in a fresh folder, so that nothing left behind gets into a
wheel. It consists of a file for the core and one for each provider that has its own: all of them, or none.

``CC`` and ``CFLAGS`` are obeyed. One extension serves all CPython releases from 3.11 on (abi3).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What is compiled: the module's file in the wheel, and its source.
MODULES = {
    "mbframework/_speedups.abi3.so": "speedups.c",
    "mbframework_kafka/_speedups.abi3.so": "kafka.c",
}
#: The oldest CPython whose limited API is enough.
OLDEST = (3, 11)


class NotBuiltError(Exception):
    """Why there is no extension."""


class ExtensionHook(BuildHookInterface[Any]):
    """See the module."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files of a wheel."""
        wanted = os.environ.get("MBFRAMEWORK_EXTENSION", "").strip().lower() or "auto"
        if wanted not in ("auto", "off", "require"):
            raise SystemExit(f"MBFRAMEWORK_EXTENSION={wanted!r}; expected auto, off or require")
        if version == "editable":
            for name in MODULES:
                self._beside(name).unlink(missing_ok=True)
        if wanted == "off":
            return
        self._folder = tempfile.mkdtemp(prefix="mbframework-build-")
        try:
            built = compile_extension(Path(self.root, "native"), Path(self._folder))
        except NotBuiltError as why:
            shutil.rmtree(self._folder)
            if wanted == "require":
                raise SystemExit(f"MBFRAMEWORK_EXTENSION=require, but the extension cannot be built: {why}") from None
            self.app.display_warning(f"mbframework: plain Python, without the extension in C: {why}")
            return
        for name, file in built.items():
            if version == "editable":
                shutil.copy(file, self._beside(name))
            else:
                build_data["force_include"][str(file)] = name
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp{OLDEST[0]}{OLDEST[1]}-abi3-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the wheel is written."""
        shutil.rmtree(getattr(self, "_folder", ""), ignore_errors=True)

    def _beside(self, name: str) -> Path:
        """Where a module's file stands beside the sources in Python: only an editable install looks there."""
        package, _, file = name.partition("/")
        return Path(self.root, "" if package == "mbframework" else "providers", package, file)


def compile_extension(sources: Path, folder: Path) -> dict[str, Path]:
    """The extension's files, made below ``folder``, by their names in the wheel.

    :raises NotBuiltError: there is none for this interpreter, or the compiler failed.
    """
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotBuiltError("it is made for CPython with the GIL")
    settings = sysconfig.get_config_vars()
    link = shlex.split(settings.get("LDSHARED") or "cc -shared")
    link[:1] = shlex.split(os.environ.get("CC", "")) or link[:1]
    command = [
        *link, *shlex.split(settings.get("CCSHARED") or "-fPIC"), "-O2", "-DNDEBUG", "-g0", "-fvisibility=hidden",
        *shlex.split(os.environ.get("CFLAGS", "")), f"-DPy_LIMITED_API=0x{OLDEST[0]:02x}{OLDEST[1]:02x}0000",
        f"-I{sysconfig.get_path('include')}",
    ]  # fmt: skip
    built = {}
    for name, source in MODULES.items():
        built[name] = folder / name
        built[name].parent.mkdir(parents=True, exist_ok=True)
        _run_compiler([*command, str(sources / source), "-o", str(built[name])], built[name])
    return built


def _run_compiler(command: list[str], target: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise NotBuiltError(f"the compiler cannot be started: {error}") from None
    if done.returncode or not target.is_file():
        lines = done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
        raise NotBuiltError(next((line for line in lines if "error" in line), lines[0]))
