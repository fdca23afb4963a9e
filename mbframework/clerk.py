"""Who answers requests on behalf of an engine, or of a lane of a sidecar (see :mod:`mbframework.control`).

Promises: does what the buffer's own methods do, under the same locks, and waits for no provider longer than
``_KEEP_S``; only in the modes that keep nothing on disk it waits ``_DELIVER_S`` for a replayed message to be delivered.

The reporter's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbframework.admission import MEMORY_ONLY
from mbframework.control import Control, SenderHandlers, WriterHandlers
from mbframework.deadstore import DeadStore, drop, settled_now
from mbframework.errors import FlushTimeout
from mbframework.ledger import Ledger
from mbframework.outlet import Outlet
from mbframework.replay import Replayed, into, replay

if TYPE_CHECKING:
    from mbframework.engine import Engine
    from mbframework.files import Files
    from mbframework.sender import Sender
    from mbframework.sidecar import DrainedLane

_KEEP_S = 0.5
_DELIVER_S = 5.0


def of_engine(engine: Engine) -> Control:
    """For the lane of an engine, whose parts are all made."""
    store = DeadStore(engine.files, engine.directory.dead_path(engine.name))

    def again(ids: Sequence[int]) -> Replayed:
        return replay(store, ids, into(engine.lane), lambda: _keep(engine))

    sender = None
    if engine.sender is not None and engine.outlet is not None and engine.ledger is not None:
        sender = SenderHandlers(
            pause=engine.pause,
            resume=engine.resume,
            retry=engine.sender.interrupt,
            drop=lambda ids: _drop(store, ids, engine.sender, engine.outlet, engine.ledger),
            purge=engine.purge,
        )
    return Control(
        engine.files,
        engine.path,
        engine.writer_events,
        sender=sender,
        writer=WriterHandlers(set_mode=engine.set_mode, replay=again),
        notify=lambda: engine.reporter.notify(),
    )


def of_sidecar(files: Files, lane: DrainedLane) -> Control:
    """For a lane that a process only sends."""
    store = DeadStore(files, lane.outlet.dead.directory)
    return Control(
        files,
        lane.path,
        lane.events,
        sender=SenderHandlers(
            pause=lane.pause,
            resume=lane.resume,
            retry=lane.sender.interrupt,
            drop=lambda ids: _drop(store, ids, lane.sender, lane.outlet, lane.ledger),
            purge=lane.purge,
        ),
        notify=lambda: lane.reporter.notify(),
    )


def _keep(engine: Engine) -> None:
    """Everything accepted so far is delivered, or on the device."""
    if engine.lane.mode in MEMORY_ONLY:
        engine.flush(_DELIVER_S)
        return
    if engine.lane.live:
        try:
            engine.flush(_KEEP_S)
        except FlushTimeout:
            # To disk with it.
            pass
        else:
            return
    engine.sync()


def _drop(
    store: DeadStore, ids: Sequence[int], sender: Sender | None, outlet: Outlet | None, ledger: Ledger | None
) -> int:
    if sender is None or outlet is None or ledger is None:
        raise AssertionError("only who sends drops dead letters")
    number = drop(store, ids, lambda: settled_now(ledger), outlet.dead.apart)
    # There may be room for the next of them.
    sender.interrupt()
    return number
