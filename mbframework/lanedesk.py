"""Where a person turns with a lane, whoever holds it, or nobody: it is paused, resumed, tried again, purged, given
another mode.

Promises: a process that holds the lane is asked (see :mod:`mbframework.control`). Where none is there to answer, a
pause, its end and a purge are done here, under the lane's own locks (see :mod:`mbframework.orphan`); the rest is
refused.

Any thread; waits for an answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mbframework import directory as directories
from mbframework import orphan
from mbframework.control import ControlError, ask
from mbframework.files import Files
from mbframework.lockfile import has_writer


def tell(
    files: Files, lane_path: str, action: str, arguments: Mapping[str, Any] | None = None, timeout: float = 5.0
) -> dict[str, Any]:
    """Have something done with the lane. Actions, arguments and answers are those of :func:`~mbframework.control.ask`;
    an answer also has ``"running": False`` where no process has the lane.

    :param timeout: seconds to wait for an answer.
    :raises ControlError: nobody is there whom it could be asked, or answers; or the answer is a refusal.
    :raises BufferLocked: a process has taken the lane meanwhile: ask again.
    :raises UnsupportedFormat: a newer release wrote the lane; nothing was changed.
    :raises OSError: the device failed.
    """
    try:
        return ask(files, lane_path, action, arguments, timeout)
    except ControlError as error:
        if not error.nobody:
            raise
        done = _without_a_sender(files, lane_path, action)
        if done is None:
            raise
        return done


def _without_a_sender(files: Files, lane_path: str, action: str) -> dict[str, Any] | None:
    """The answer; None where it takes a process."""
    if action == "pause":
        orphan.pause(files, lane_path)
        return {"running": False}
    if action == "resume":
        return {"running": False} if orphan.resume(files, lane_path) else None
    if action != "purge":
        return None
    if has_writer(files, lane_path):
        return {"purged": orphan.purge_beside_writer(files, lane_path)}
    buffer_id = bytes.fromhex(directories.read(files, os.path.dirname(lane_path))["id"])
    with orphan.Orphan(files, lane_path, buffer_id) as held:
        return {"running": False, "purged": held.purge()}
