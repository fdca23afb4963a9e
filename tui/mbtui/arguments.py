"""The command line of ``mbtui``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEFAULT_THEME = "okabe-ito-dark"


@dataclass(frozen=True, slots=True)
class Options:
    """How the dashboard is to behave. ``directories`` may be empty: then they are looked for."""

    directories: tuple[str, ...] = ()
    write: bool = False
    once: bool = False
    poll: bool = False
    color: bool = True
    ascii: bool = False
    theme: str = DEFAULT_THEME


def parser() -> argparse.ArgumentParser:
    """What there is to say."""
    made = argparse.ArgumentParser(
        prog="mbtui",
        description="Show how buffers stand, live, from their directories alone.",
        epilog="Without DIR: the buffers in the current directory, in MBFRAMEWORK_DIRS, and those that processes "
        "have open. `mbtui --simulate` starts the simulator, `mbtui --web` serves the dashboard to a browser; "
        "both have a --help of their own.",
        allow_abbrev=False,
    )
    made.add_argument("directories", metavar="DIR", nargs="*", help="the directory of a buffer")
    made.add_argument("--write", action="store_true", help="allow what changes a buffer: pause, retry, mode, purge")
    made.add_argument("--once", action="store_true", help="print one plain report and exit")
    made.add_argument("--poll", action="store_true", help="do not ask the system for notifications")
    made.add_argument("--no-color", action="store_true", help="no colours (as with NO_COLOR)")
    made.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    made.add_argument("--theme", default=DEFAULT_THEME, metavar="NAME", help="the theme (default: %(default)s)")
    return made


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """What the command line and the environment say; wrong usage ends the program with 2."""
    given = parser().parse_args(arguments)
    directories = tuple(dict.fromkeys(os.path.abspath(path) for path in given.directories))
    return Options(
        directories=directories,
        write=given.write,
        once=given.once,
        poll=given.poll,
        color=not given.no_color and not environ.get("NO_COLOR"),
        ascii=given.ascii or not _speaks_unicode(environ),
        theme=given.theme,
    )


def wants_screen(options: Options, environ: Mapping[str, str]) -> bool:
    """Whether there is a terminal to draw on."""
    if options.once or environ.get("TERM", "") in ("dumb", ""):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def _speaks_unicode(environ: Mapping[str, str]) -> bool:
    """Whether the locale's characters include the ones that are drawn with; what cannot be told is taken for yes."""
    encoding = (sys.stdout.encoding or "utf-8").lower()
    return encoding.replace("-", "").startswith("utf") or bool(environ.get("PYTHONIOENCODING"))
