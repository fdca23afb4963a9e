"""What changes a buffer: pause, retry, mode, purge. The process that has it open is asked; a pause, its end and a purge
need none (see :mod:`mbframework.lanedesk`).

Promises
--------
- Nothing is asked of anybody unless the dashboard was started with ``--write``.
- A change of mode and a purge take a typed confirmation. It shows the buffer's directory; where several are shown, what
  is typed for a purge names the buffer as well.
- The answer, or why there is none, is shown; the event loop never waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mbframework.config import MODES
from mbframework.errors import MessageBufferError
from mbframework.files import Files
from mbframework.monitor import LaneView
from mbtui.ink import clean

if TYPE_CHECKING:
    from mbtui.app import DashboardApp

Ask = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def ask_the_engine(lane_path: str, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Have it done, and wait for the answer.

    :raises MessageBufferError: nobody answers, or the answer is no.
    :raises OSError: the device failed.
    """
    from mbframework.lanedesk import tell

    return tell(Files(), lane_path, action, arguments)


class Orders:
    """Gives them in the name of whoever sits at the dashboard."""

    def __init__(self, app: DashboardApp, ask: Ask = ask_the_engine) -> None:
        self._app = app
        self._ask = ask

    def allowed(self) -> bool:
        """Whether changes are; says so where they are not."""
        if not self._app.options.write:
            self._app.say("read-only: start mbtui with --write to change a buffer", "warning")
        return self._app.options.write

    def pause(self, path: str, lane: LaneView) -> None:
        """Pause the lane, or resume one that is paused."""
        if self.allowed():
            paused = lane.status.paused
            self._give(path, "resume" if paused else "pause", {}, "resumed" if paused else "paused")

    def retry(self, path: str) -> None:
        """Ask the provider now."""
        if self.allowed():
            self._give(path, "retry", {}, "the provider is being asked")

    def mode(self, path: str, lane: LaneView) -> None:
        """Change the mode."""
        if not self.allowed():
            return
        from mbtui.dialogs import Ask as AskDialog
        from mbtui.dialogs import Confirm

        directory = os.path.dirname(path)

        def known(text: str) -> str:
            mode = text.strip().lower()
            if mode not in MODES:
                raise ValueError(f"expected one of {', '.join(MODES)}")
            return mode

        def confirmed(mode: str) -> None:
            question = f"Change the mode of lane {lane.name} of {directory} from {lane.status.mode} to {mode}?"

            def give(yes: bool | None) -> None:
                if yes:
                    self._give(path, "mode", {"mode": mode}, f"mode {mode}")

            self._app.push_screen(Confirm(question, mode), give)

        def chosen(mode: str | None) -> None:
            if mode is not None:
                confirmed(mode)

        question = f"Mode of lane {lane.name} of {directory}, now {lane.status.mode}: {', '.join(MODES)}?"
        self._app.push_screen(AskDialog(question, known, hint="mode"), chosen)

    def purge(self, path: str, lane: LaneView) -> None:
        """Throw away what waits."""
        if not self.allowed():
            return
        from mbtui.dialogs import Confirm

        waiting = lane.status.resident
        what = f"The {waiting:,} messages that wait" if waiting != 1 else "The message that waits"
        directory = os.path.dirname(path)
        question = f"Purge lane {lane.name} of {directory}? {what} will never be delivered, nor come back."
        several = len({view.directory for view, _ in self._app.main.places}) > 1
        # Typed as it is shown: a name may hold what no key gives.
        name = clean(os.path.join(os.path.basename(directory), lane.name) if several else lane.name)

        def give(yes: bool | None) -> None:
            if yes:
                self._give(path, "purge", {}, "purged")

        self._app.push_screen(Confirm(question, f"purge {name}"), give)

    def _give(self, path: str, action: str, arguments: dict[str, Any], done: str) -> None:
        def work() -> None:
            try:
                answer = self._ask(path, action, arguments)
            except (MessageBufferError, OSError) as error:
                self._app.call_from_thread(self._app.say, f"{action}: {error}", "error")
            else:
                self._app.call_from_thread(self._app.say, f"{action}: {_outcome(answer, done)}", "information")

        self._app.run_worker(work, thread=True, exit_on_error=False, group="orders")


def _outcome(answer: Mapping[str, Any], done: str) -> str:
    number = answer.get("purged")
    if isinstance(number, int):
        return f"{number:,} message{'' if number == 1 else 's'} removed"
    return f"{done}; no process sends it now" if answer.get("running") is False else done
