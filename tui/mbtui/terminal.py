"""The terminal that the program was started on: its size, whether it is still there, and how it was before.

Promises
--------
- Nothing in here waits for the terminal: one that takes nothing is left as it is.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import termios
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

#: What a screen switches on, switched off: keyboard protocol, the other screen, focus, mouse, paste; cursor and wrap.
_PLAIN = b"\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2004l\x1b[?7h"


def measure_it(environ: MutableMapping[str, str]) -> None:
    """Let the screen library ask the terminal for its size. COLUMNS and LINES, which some shells and test runners hand
    down, would hold it for ever; only where there is no terminal (in a browser) they are the way to tell the size."""
    if "TEXTUAL_DRIVER" not in environ:
        for name in ("COLUMNS", "LINES"):
            environ.pop(name, None)


class Terminal:
    """Standard input's terminal, if it is one, as it is when this is made. Any thread."""

    def __init__(self) -> None:
        self._fd = sys.__stdin__.fileno() if sys.__stdin__ else 0
        self._before: list[Any] | None = None
        with suppress(termios.error):
            self._before = termios.tcgetattr(self._fd)

    @property
    def gone(self) -> bool:
        """Whether there was one, and it was closed."""
        try:
            termios.tcgetattr(self._fd)
        except termios.error as error:
            return bool(error.args[0] == errno.EIO)
        return False

    def restore(self) -> None:
        """Make it what it was, without the help of the screen library."""
        if self._before is None or self.gone:
            return
        with suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
        out = sys.__stderr__.fileno() if sys.__stderr__ else 2
        if os.isatty(out) and select.select([], [out], [], 0)[1]:
            with suppress(OSError):
                os.write(out, _PLAIN)
