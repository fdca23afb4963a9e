"""The two ways to run: the live screen, and one report."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mbtui.arguments import Options

if TYPE_CHECKING:
    from mbframework.monitor import Monitor, View


def found() -> tuple[str, ...]:
    """The buffers on this machine."""
    from mbframework.monitor.find import find_buffers

    return tuple(buffer.path for buffer in find_buffers())


def live(options: Options, directories: tuple[str, ...]) -> int:
    """The screen, until the person leaves it, or a signal n ends it: 128 + n."""
    import asyncio

    from mbtui.departure import Departure, departing
    from mbtui.scout import Scout
    from mbtui.source import Directories
    from mbtui.terminal import measure_it

    measure_it(os.environ)
    # It reads while the application is being imported, which takes about as long.
    scout = Scout(Directories(directories))
    scout.start()
    try:
        from mbtui.app import DashboardApp

        app = DashboardApp(replace(options, directories=directories), scout=scout)
        try:
            with Departure() as departure:
                asyncio.run(departing(app, departure))
        finally:
            app.stop()
    finally:
        scout.stop()
    return 128 + departure.number if departure.number else app.return_code or 0


#: Seconds between the two looks that a pace takes.
_PACE_S = 1.0


def _look(monitor: Monitor) -> View:
    """A look, and another one where the first cannot tell the pace of a lane that is in use."""
    view = monitor.look()
    if any(lane.incoming is None and lane.status.state not in ("dead", "stale") for lane in view.lanes):
        time.sleep(_PACE_S)
        view = monitor.look()
    return view


def once(options: Options, directories: tuple[str, ...]) -> int:
    """One report on stdout. 1: a directory could not be read, or the report not be written."""
    from mbframework.monitor import Monitor
    from mbtui.glyphs import ASCII, UNICODE, only_ascii
    from mbtui.report import report

    status = 0
    try:
        for at, directory in enumerate(directories):
            monitor = Monitor(directory)
            try:
                view = _look(monitor)
                events = {lane.name: monitor.events(lane.name) for lane in view.lanes}
            finally:
                monitor.close()
            status = max(status, 1 if view.error else 0)
            if at:
                print()
            for line in report(view, events, now=time.time(), glyphs=ASCII if options.ascii else UNICODE):
                print(only_ascii(line) if options.ascii else line)
        sys.stdout.flush()
    except OSError as error:
        # What the interpreter still holds must not fail again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"mbtui: the report cannot be written: {error.strerror or error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 130
    return status
