"""The command ``mbtui``: the live dashboard of buffers, and one plain report where there is no terminal for it.

Exit status: 0; 1: ``--once`` and a directory could not be read, or the report not be written; 2: wrong usage, nothing
to look at, or the extra is not installed; 128 + n: ended by signal n.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

REQUIRED = ("textual", "watchdog")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line (or ``arguments``) says, and return the exit status."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        # Where it is not a key: in the middle of the imports, or of a report.
        return 130
    except ImportError as error:
        from mbframework.errors import MessageBufferError

        if not isinstance(error, MessageBufferError):
            raise
        print(f"mbtui: {error}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        needs = " and ".join(missing)
        print(f"mbtui needs {needs}, not installed here; run: pip install 'mbframework[tui]'", file=sys.stderr)
        return 2
    for flag, module in (("--simulate", "simulator"), ("--web", "web")):
        if flag in given:
            from importlib import import_module

            given.remove(flag)
            return int(import_module(f"mbtui.{module}").main(given) or 0)

    from mbtui.arguments import parse, wants_screen

    try:
        options = parse(given, os.environ)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    from mbtui.starting import found, live, once

    directories = options.directories or found()
    if not directories:
        print(
            "mbtui: no buffer in the current directory, in MBFRAMEWORK_DIRS, or open in a process that can be seen; "
            "run: mbtui DIR",
            file=sys.stderr,
        )
        return 2
    if wants_screen(options, os.environ):
        return live(options, directories)
    return once(options, directories)
