"""``python -m mbtui.web_child PARENT ARGUMENT…``: the dashboard for one browser tab, as a child of the server.

Promises
--------
- It ends when the server does, however that ends: the kernel kills it (Linux), and it looks once itself, since the
  server may have gone before the kernel was told.
- It draws through textual's web driver, on pipes: no terminal is needed, and no shell is in between.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process together with ``parent``, the process that started it; at once where that has gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def main(arguments: Sequence[str]) -> int:
    """Show the dashboard; the exit status."""
    die_with(int(arguments[0]))
    from mbtui.arguments import parse
    from mbtui.starting import live

    options = parse(arguments[1:], os.environ)
    return live(options, options.directories)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
