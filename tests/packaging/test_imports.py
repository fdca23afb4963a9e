"""Directions that a list of contracts cannot express; the rest stands in pyproject.toml under tool.importlinter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "mbframework"

#: Calls that change or read what is on disk. Names that only compute (os.path, getpid, fspath) are free.
SYSTEM_CALLS = {
    *("open", "read", "pread", "preadv", "write", "pwrite", "pwritev", "truncate", "ftruncate", "copy_file_range"),
    *("fsync", "fdatasync", "sync", "posix_fallocate", "posix_fadvise", "sendfile", "splice", "lockf"),
    *("rename", "renames", "replace", "remove", "unlink", "link", "symlink", "mkdir", "makedirs", "rmdir", "mkfifo"),
    *("listdir", "scandir", "walk", "fwalk", "stat", "lstat", "fstat", "statvfs", "fstatvfs", "chmod", "fchmod"),
    *("chown", "fchown", "utime", "readlink", "access"),
}
PATH_METHODS = {"read_bytes", "read_text", "write_bytes", "write_text", "iterdir", "rglob", "touch", "hardlink_to"}
SYSTEM_MODULES = {"fcntl", "mmap", "shutil", "tempfile", "ctypes"}

#: These do not touch the buffer's files: they read what the user names, or are commands and tools.
OUTSIDE = ("bench", "cli", "testing", "config", "plugins")


def modules() -> Iterator[Path]:
    for path in sorted(CORE.rglob("*.py")):
        first = path.relative_to(CORE).parts[0].removesuffix(".py")
        if first != "files" and first not in OUTSIDE and not first.startswith("config"):
            yield path


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from at_run_time(node)


def system_calls(tree: ast.AST) -> Iterator[str]:
    """Every way in which the module speaks to the operating system about files, as "line: name"."""
    names = {"os": "os", "posix": "os", "io": "io", "pathlib": "pathlib"}
    imported: dict[str, str] = {}
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if top in SYSTEM_MODULES:
                    yield f"{node.lineno}: import {alias.name}"
                imported[alias.asname or top] = names.get(top, "")
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            top = (node.module or "").partition(".")[0]
            for alias in node.names:
                if top in SYSTEM_MODULES or (names.get(top) in {"os", "io"} and alias.name in SYSTEM_CALLS):
                    yield f"{node.lineno}: from {node.module} import {alias.name}"
    for node in at_run_time(tree):
        if isinstance(node, ast.Attribute):
            owner = imported.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
            if (owner in {"os", "io"} and node.attr in SYSTEM_CALLS) or node.attr in PATH_METHODS:
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield f"{node.lineno}: open()"


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(CORE)))
def test_only_files_calls_the_operating_system(path: Path) -> None:
    assert list(system_calls(ast.parse(path.read_text()))) == [], "only mbframework/files.py may do this"


def test_the_search_finds_what_files_does() -> None:
    found = " ".join(system_calls(ast.parse((CORE / "files.py").read_text())))
    for name in ("import fcntl", "import mmap", "os.open", "os.pwrite", "os.fdatasync", "os.rename", "os.unlink"):
        assert name in found


def test_importing_the_core_loads_no_provider_and_no_client_library() -> None:
    """At run time too: what is imported late, or by name, does not appear in the import graph."""
    program = (
        "import sys, mbframework, mbframework.cli\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*sorted(name for name in loaded if name.startswith(('mbframework_', 'mbtui'))"
        " or name in {'kafka', 'confluent_kafka', 'textual', 'watchdog', 'sqlite3', 'pytest', 'hypothesis',"
        " 'prometheus_client', 'opentelemetry'}))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []
