"""``python -m tests.sanitize [--fuzz INPUTS] [arguments of pytest]``: tests with an extension that is compiled with
AddressSanitizer and UndefinedBehaviorSanitizer; without arguments those of the spool and of what providers have in C.
Then what the extension reads is fuzzed (:mod:`tests.fuzz`), with as many inputs as is said; 0 leaves that out.

The first error ends the run, and its report stands at the end of the output. Python allocates with malloc() meanwhile,
so that a step beyond any object is seen. Leaks are not looked for: an interpreter leaves much behind by design.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hatch_build import NotBuiltError, compile_extension

ROOT = Path(__file__).parents[2]
_TESTS = ("-q", "tests/spool", "tests/providers/test_kafka_encoding.py")
#: What comes to the extension: frames, one by one and many at once, and lanes, which are opened and written to.
_TARGETS = ("frame", "reader", "opening", "verify", "dead letters")
_INPUTS = 20_000
_FLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
#: Run by every Python that finds it, those that a test starts as well: the package then finds the extension loaded.
_AT_START = """
import importlib.util, sys
for name, path in {modules!r}:
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
"""


def main(given: list[str]) -> int:
    """Compile, run pytest and then the fuzzer in processes of their own; the exit status of the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sanitize", allow_abbrev=False)
    parser.add_argument("--fuzz", type=int, default=_INPUTS, metavar="INPUTS", help="(default: %(default)s)")
    options, arguments = parser.parse_known_args(given)
    with tempfile.TemporaryDirectory(prefix="mbframework-sanitize-") as folder:
        os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {_FLAGS}"
        try:
            built = compile_extension(ROOT / "native", Path(folder, "modules"))
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
        modules = [(name.partition(".")[0].replace("/", "."), str(file)) for name, file in built.items()]
        Path(folder, "sitecustomize.py").write_text(_AT_START.format(modules=modules))
        parts = [["pytest", *(arguments or _TESTS)]]
        if options.fuzz:
            # By one process, which is this one's child: what ends it ends the run.
            targets = [f"--target={name}" for name in _TARGETS]
            parts.append(["tests.fuzz", f"--inputs={options.fuzz}", "--processes=1", *targets])
        for part in parts:
            status = subprocess.run([sys.executable, "-m", *part], cwd=ROOT, env=environment, check=False).returncode
            if status:
                return status
        return 0


def _runtime(compiler: str, name: str) -> str:
    asked = [compiler, f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
