"""What a writer that is gone has left unfinished, made good as its next opening would, without opening the lane.

Promise: afterwards the lane is as one that was closed properly. The caller holds the writer's lock.
"""

from __future__ import annotations

from mbframework.files import Files
from mbframework.ledger import Ledger
from mbframework.spool import head, recovery
from mbframework.spool.headfile import HeadFile
from mbframework.spool.recovery import Recovered
from mbframework.spool.runs import Runs
from mbframework.spool.survey import glance, survey


def unfinished(files: Files, lane_path: str) -> bool:
    """Whether something waits in a lane, or it takes mending. Nothing is changed.

    :raises OSError: it cannot be read.
    """
    known = glance(files, lane_path)
    slot = known.seek
    return slot is None or not known.clean or known.ordinal > slot.ordinal + slot.settled


def mend(files: Files, lane_path: str, buffer_id: bytes) -> list[str] | None:
    """What was mended, in words; None where the lane had been closed properly.

    :raises UnsupportedFormat: a newer release wrote it; nothing was changed.
    :raises OSError: the device failed.
    """
    before = survey(files, lane_path)
    if before.clean and before.seek is not None and all(found.entry.sealed for found in before.segments):
        return None
    run, boot_id = files.random(16), files.boot_id()
    begun = recovery.recover(files, lane_path, buffer_id=buffer_id, run=run, boot_id=boot_id)
    Runs(files, lane_path).add(run, begun.head.next)
    Ledger.open(files, lane_path, begun.seek, begun.seek_slot, exists=before.seek is not None).close()
    close_in_order(files, lane_path, begun)
    return begun.notes


def close_in_order(files: Files, lane_path: str, begun: Recovered) -> None:
    """Leave a recovered lane as its writer would at its end. Raises OSError."""
    head_file = HeadFile.begin(files, lane_path, begun.head, begun.head_slot, exists=begun.head_exists, mapped=False)
    try:
        for found in begun.unsynced:
            recovery.finish_seal(files, lane_path, found)
        begun.head.generation += 1
        begun.head.flags = head.CLEAN
        head_file.publish(begun.head.pack())
        head_file.sync()
    finally:
        head_file.close()
