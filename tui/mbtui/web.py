"""``mbtui --web``: the dashboard in a browser on the same machine.

Promises
--------
- 127.0.0.1 only, and read-only unless ``--write`` is given.
- The link, on stdout, is good once and for ten minutes; Enter on the terminal prints another one. No log names it.
- Ctrl-C, SIGTERM and SIGHUP stop it with all its tabs; no process of a tab survives it, however it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mbframework.cli.terminal import narrate, plural

if TYPE_CHECKING:
    from mbtui.web_server import BrowserView

PORT = 8417
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; the exit status: 0 Ctrl-C, 2 it cannot begin, 128 + n another signal n."""
    given = _parser().parse_args(arguments)
    missing = [name for name in ("textual", "watchdog", "textual_serve") if find_spec(name) is None]
    if missing:
        needs = " and ".join(missing)
        narrate(f"the browser view needs {needs}, not installed here; run: pip install 'mbframework[web]'")
        return 2

    from mbtui.starting import found
    from mbtui.web_server import BrowserView, listen

    directories = tuple(os.path.abspath(path) for path in given.directories) or found()
    if not directories:
        narrate("no buffer in the current directory, in MBFRAMEWORK_DIRS, or open in a process; run: mbtui --web DIR")
        return 2
    try:
        listening = listen(given.port)
    except OSError as error:
        narrate(_why_not(given.port, error))
        return 2
    with listening:
        title = "mbtui " + (directories[0] if len(directories) == 1 else plural(len(directories), "buffer"))
        view = BrowserView(_dashboard_arguments(given, directories), listening, title=title)
        number = asyncio.run(_serve(view, given.write))
    with contextlib.suppress(OSError):  # the terminal may be gone
        narrate("stopped")
    return 0 if number == signal.SIGINT else 128 + number


async def _serve(view: BrowserView, write: bool) -> int:
    """The signal that ended it."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    numbers: list[int] = []

    def stop(number: int) -> None:
        numbers.append(number)
        stopped.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    print(view.new_link(), flush=True)
    narrate("changes to the buffers are allowed (--write)" if write else "read-only; --write would allow changes")
    if sys.stdin is not None and sys.stdin.isatty():
        narrate("The link is good once, for ten minutes. Enter prints another one, Ctrl-C stops the server.")
        loop.add_reader(sys.stdin.fileno(), _another, view)
    else:
        narrate("The link is good once, for ten minutes.")
    await view.serve_until(stopped)
    return numbers[0]


def _another(view: BrowserView) -> None:
    """Enter was pressed."""
    descriptor = sys.stdin.fileno()
    try:
        # In the background, reading would stop the process.
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            return
        pressed = os.read(descriptor, 4096)
    except OSError:
        # The terminal is gone; a signal says so as well.
        pressed = b""
    if pressed:
        print(view.new_link(), flush=True)
    else:
        asyncio.get_running_loop().remove_reader(descriptor)


def _why_not(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of 127.0.0.1 is taken: give another one with --port N, or --port 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"port {port} is not for this user: give one from 1024 on with --port N"
    return f"port {port} of 127.0.0.1 cannot be used: {error.strerror or error}"


def _dashboard_arguments(given: argparse.Namespace, directories: Sequence[str]) -> list[str]:
    """What each tab's dashboard is told."""
    arguments = [f"--{name}" for name in ("write", "poll", "ascii") if getattr(given, name)]
    if given.no_color:
        arguments.append("--no-color")
    if given.theme:
        arguments.append(f"--theme={given.theme}")
    return [*arguments, "--", *directories]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mbtui --web",
        description="Serve the dashboard to browsers on this machine, at 127.0.0.1 alone. Prints a link that is good "
        "once.",
        allow_abbrev=False,
    )
    parser.add_argument("--web", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "directories", metavar="DIR", nargs="*", help="the directory of a buffer [default: those found]"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=PORT,
        help="where to listen; 0 is any free port [default: %(default)s]",
    )
    parser.add_argument("--write", action="store_true", help="allow what changes a buffer: pause, retry, mode, purge")
    parser.add_argument("--poll", action="store_true", help="do not ask the system for notifications")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument("--no-color", action="store_true", help="no colours")
    parser.add_argument("--theme", metavar="NAME", help="the theme")
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r}; expected 0 to 65535")
    return value


if __name__ == "__main__":
    sys.exit(main())
