"""The command ``mbtui``: one plain status report for each directory.

The live screen is not part of this release, and the command says so. It needs the extra ``tui`` all the same, so that
what is installed for it today is what the screen will need.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

REQUIRED = ("textual", "watchdog")


def main(arguments: Sequence[str] | None = None) -> int:
    """Report on each directory named in ``arguments`` (default: the command line); return the exit status.

    0: every directory was read; 1: one could not be; 2: wrong usage, or the extra is not installed.
    """
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        needs = " and ".join(missing)
        print(f"mbtui needs {needs}, not installed here; run: pip install 'mbframework[tui]'", file=sys.stderr)
        return 2

    from mbframework.cli import main as mb

    parser = argparse.ArgumentParser(prog="mbtui", description="Print the status of buffers, once.")
    parser.add_argument("directories", metavar="DIR", nargs="+", help="the directory of a buffer")
    status = 0
    for directory in parser.parse_args(arguments).directories:
        try:
            mb(["status", directory])
        except SystemExit as end:
            status = max(status, 1 if end.code else 0)
    print("The live screen is not part of this release; `watch mb status DIR` repeats the report.", file=sys.stderr)
    return status
