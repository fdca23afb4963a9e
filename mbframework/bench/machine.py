"""The machine and the Python build behind a figure."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

from mbframework import speedups
from mbframework.files import Files


def facts(directory: str) -> dict[str, str]:
    """What a reader needs to judge a figure; ``directory`` is where the buffers were."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory()}, {platform.system()} {platform.release()}",
        "file system": Files().file_system(directory) or "unknown",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": _build(),
        "mbframework": f"{version('mbframework')}, {speedups.why_plain or 'the extension in C is in use'}",
        "date": time.strftime("%Y-%m-%d"),
        "load": "{:.2f} and {:.2f} programs wanted a core in the last minute, and five".format(*os.getloadavg()),
    }


def _processor() -> str:
    try:
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"


def _build() -> str:
    """Whether the interpreter was compiled to be fast, as far as it tells."""
    flags = f"{sysconfig.get_config_var('CFLAGS') or ''} {sysconfig.get_config_var('PY_CORE_CFLAGS') or ''}"
    levels = re.findall(r"-O(\w*)", flags)
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimised = bool(levels) and levels[-1] not in ("0", "") and "-DNDEBUG" in flags
    optimised = optimised and not sysconfig.get_config_var("Py_DEBUG")
    said = [
        "optimised" if optimised else "NOT OPTIMISED",
        f"-O{levels[-1]}" if levels else "no -O",
        "-DNDEBUG" if "-DNDEBUG" in flags else "asserts on",
        "--enable-optimizations"
        if "--enable-optimizations" in arguments
        else "no --enable-optimizations in CONFIG_ARGS",
    ]
    said += [option for option in ("--with-lto", "--with-pydebug") if option in arguments]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        said.append("free-threaded")
    return ", ".join(said) + f"; switch interval {sys.getswitchinterval() * 1000:g} ms"
