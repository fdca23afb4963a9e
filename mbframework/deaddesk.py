"""Where a person turns with a lane's dead letters: listed, replayed, dropped, whoever holds the lane, or nobody.

Promises
--------
- A process that holds the lane is asked (see :mod:`mbframework.control`); what nobody holds is done here, under the
  lane's own locks.
- A letter is dropped only after its message is in the buffer again and kept; a kill in between repeats it.
- Only the letters that are named are touched, so that what is rejected again meanwhile is not replayed again.

One thread. ``progress`` is called with the number of letters that are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbframework import orphan
from mbframework.buffer import MessageBuffer
from mbframework.control import ControlError, ask
from mbframework.deadstore import DeadStore, drop, settled_in
from mbframework.errors import BufferLocked
from mbframework.files import Files
from mbframework.replay import AT_ONCE, Replayed, into, replay
from mbframework.request import MOST_IDS, chunks
from mbframework.spool import layout

if TYPE_CHECKING:
    from mbframework.config import Config


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many letters are done, and why not all: "" where they are."""

    done: int
    why: str = ""


class DeadDesk:
    """See the module. ``config`` names the directory; where nobody holds the lane it is opened with it."""

    def __init__(self, files: Files, config: Config, lane: str, timeout: float = 10.0) -> None:
        self._files = files
        self._config = config
        self._timeout = timeout
        self.lane = lane
        self.path = os.path.join(os.path.abspath(config.directory or "."), lane)
        self.store = DeadStore(files, layout.dead_path(self.path))

    def drop(self, ids: Iterable[int], progress: Callable[[int], object] = bool) -> Outcome:
        """Let go of these letters.

        :raises ControlError: the process that holds the lane does not answer, or refuses.
        :raises OSError: the device failed.
        """
        done = 0
        for chunk in chunks(ids, MOST_IDS):
            done += self._drop(chunk)
            progress(len(chunk))
        return Outcome(done)

    def replay(self, ids: Iterable[int], progress: Callable[[int], object] = bool) -> Outcome:
        """Write these letters again as new messages, and drop them.

        :raises ControlError: the process that holds the lane does not answer, or refuses.
        :raises DirectoryError: the lane cannot be opened.
        :raises MessageBufferError: what was written again is not known to be kept: it is not dropped.
        """
        done, why = 0, ""
        for chunk in chunks(ids, AT_ONCE):
            left = chunk
            while left:
                some = self._replay(left)
                why = some.why or why
                done += len(some.ids)
                progress(len(some.ids))
                if not some.ids:
                    # Neither there any more, nor to be written again, or there is no room now.
                    progress(len(left))
                    break
                left = [each for each in left if each > max(some.ids)]
        return Outcome(done, why)

    def _replay(self, ids: list[int]) -> Replayed:
        try:
            answer = ask(self._files, self.path, "dead-replay", {"ids": ids}, self._timeout)
        except ControlError as error:
            if not error.nobody:
                raise
            done = self._replay_here(ids)
            if done.ids:
                self._drop(list(done.ids))
            return done
        replayed = Replayed(tuple(_ids(answer)), str(answer.get("why") or ""))
        if replayed.ids and not answer.get("dropped"):
            # Who writes does not send: the letters belong to whoever does.
            self._drop(list(replayed.ids))
        return replayed

    def _replay_here(self, ids: list[int]) -> Replayed:
        # It only writes, prunes nothing to make room, and does not go to another lane.
        config = self._config.replace(
            lane=self.lane, share=False, provider=None, mode="always", on_full="reject", lock_timeout=0, observers=()
        )
        with MessageBuffer.from_config(config) as buffer:
            return replay(self.store, ids, into(buffer.running_lane()), buffer.sync)

    def _drop(self, ids: list[int]) -> int:
        try:
            lock = orphan.take(self._files, self.path, layout.SENDER_LOCK_FILE)
        except BufferLocked:
            return int(ask(self._files, self.path, "dead-drop", {"ids": ids}, self._timeout)["dropped"])
        try:
            number = drop(self.store, ids, lambda: settled_in(self._files, self.path), lambda act: act())
            orphan.note(self._files, self.path, layout.SENDER_EVENTS_FILE, "dead-drop", f"dropped {number}")
            return number
        finally:
            lock.release()


def _ids(answer: dict[str, Any]) -> list[int]:
    ids = answer.get("ids")
    return [each for each in ids if type(each) is int] if isinstance(ids, list) else []
