"""``python -m tests.sanitize [arguments of pytest]``: tests with an extension that is compiled with AddressSanitizer
and UndefinedBehaviorSanitizer; without arguments those of the spool.

The first error ends the run, and its report stands at the end of the output. Python allocates with malloc() meanwhile,
so that a step beyond any object is seen. Leaks are not looked for: an interpreter leaves much behind by design.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hatch_build import NAME, NotBuiltError, compile_extension

ROOT = Path(__file__).parents[2]
_FLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
#: Run by every Python that finds it, those that a test starts as well: the package then finds the extension loaded.
_AT_START = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("mbframework._speedups", {path!r})
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
"""


def main(arguments: list[str]) -> int:
    """Compile, and run pytest in a process of its own; its exit status."""
    with tempfile.TemporaryDirectory(prefix="mbframework-sanitize-") as folder:
        os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {_FLAGS}"
        try:
            compile_extension(ROOT / "native", Path(folder))
        except NotBuiltError as why:
            print(f"sanitize: {why}", file=sys.stderr)
            return 2
        compiler = os.environ.get("CC", "gcc").split()[0]
        # The interpreter knows nothing of them, so they have to be there before it is.
        runtimes = [_runtime(compiler, name) for name in ("libasan.so", "libubsan.so")]
        environment = os.environ | {
            "LD_PRELOAD": " ".join(runtimes),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "PYTHONMALLOC": "malloc",
            "MBFRAMEWORK_EXTENSION": "require",
            "PYTHONPATH": os.pathsep.join([folder, str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        Path(folder, "sitecustomize.py").write_text(_AT_START.format(path=str(Path(folder, NAME))))
        command = [sys.executable, "-m", "pytest", *(arguments or ["-q", "tests/spool"])]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _runtime(compiler: str, name: str) -> str:
    asked = [compiler, f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
