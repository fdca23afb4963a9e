"""``mbtui --simulate``: watch a buffer work, and make its provider slow, unreachable or failing while it does.

Promises
--------
- A real buffer in a temporary directory, which is removed at the end: also on Ctrl-C, SIGTERM and SIGHUP, and after an
  error. (A SIGKILL leaves it; its name begins with ``mb-simulate-``.)
- Without a terminal it says so and ends with exit status 2, as with any other mistake.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from mbframework.cli.terminal import narrate, printable
from mbframework.errors import MessageBufferError
from mbtui.departure import Departure, departing
from mbtui.terminal import measure_it

#: In the first moments something is to be seen.
FIRST_PACE = 500.0


def main(arguments: Sequence[str] | None = None, name: str = "mbtui --simulate") -> int:
    """Run the simulator; the exit status: 0 it was quit, 2 it cannot begin, 128 + n ended by signal n.

    ``name``: of the command, for its help.
    """
    given = _parser(name).parse_args(arguments)
    if find_spec("textual") is None:
        narrate("the simulator needs textual, which is not installed here; run: pip install 'mbframework[tui]'")
        return 2
    if not _has_screen():
        narrate("the simulator needs a terminal for its input and output; without one, `mb demo` shows an outage")
        return 2
    measure_it(os.environ)

    from mbtui.simulation import Simulation
    from mbtui.simulator_screen import SimulatorApp

    departure = Departure()
    try:
        with (
            departure,
            Simulation(given.provider, pace=given.pace, mode=given.mode, message_size=given.message_size) as simulation,
        ):
            theme = "textual-light" if given.light else "textual-dark"
            color = not given.no_color and not os.environ.get("NO_COLOR")
            app = SimulatorApp(simulation, color=color, ascii=given.ascii, theme=theme)
            asyncio.run(departing(app, departure, simulation.close))
            status = simulation.picture.status
    except MessageBufferError as error:
        narrate(f"the simulator cannot begin: {printable(str(error))}")
        return 2
    if departure.number:
        return 128 + departure.number
    print(
        f"accepted {status.accepted:,} messages, delivered {status.delivered:,}, pruned {status.pruned:,}, "
        f"lost {status.lost:,}, waiting {status.resident:,}; the buffer is removed"
    )
    return 0


def _has_screen() -> bool:
    # A driver that somebody chose (the browser's) needs no terminal.
    if "TEXTUAL_DRIVER" in os.environ:
        return True
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name,
        description="Watch a real buffer in a temporary directory while you make its provider slow, unreachable or "
        "failing. Everything that is made is removed at the end.",
    )
    parser.add_argument("--simulate", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--provider", metavar="URL", default="fake:", help="what to deliver to [default: a broker in memory]"
    )
    parser.add_argument(
        "--mode", choices=("buffer", "always", "block", "raise"), default="buffer", help="[default: buffer]"
    )
    parser.add_argument(
        "--pace", metavar="N", type=_pace, default=FIRST_PACE, help=f"messages per second at first [{FIRST_PACE:.0f}]"
    )
    parser.add_argument("--message-size", metavar="BYTES", type=_size, default=200, help="of each value [default: 200]")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters alone")
    parser.add_argument("--no-color", action="store_true", help="no colours, as with NO_COLOR in the environment")
    parser.add_argument("--light", action="store_true", help="begin with the light theme; t changes it")
    return parser


def _pace(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 20_000:
        raise argparse.ArgumentTypeError(f"{text!r}; expected 0 to 20000 messages per second")
    return value


def _size(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"{text!r}; expected 1 to 60000 bytes")
    return value


if __name__ == "__main__":
    sys.exit(main())
