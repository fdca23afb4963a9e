"""The machinery finds what it is there for: each of these bugs, planted into the engine, is caught.

Those called *found* were in the engine once, until the model found them.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest

from mbframework import deadletters, engine, housekeeper, lane, ledger, outlet, sender, shutdown
from mbframework.spool import layout, prepared, recovery, segment, slots, survey, writer
from mbframework.spool.prepared import Prepared
from mbframework.spool.segment import Active, seal_room
from mbframework.spool.walk import walk
from mbframework.spool.writer import SpoolWriter
from tests.model import scripts
from tests.model.explore import Explorer, Script
from tests.model.planting import planted
from tests.model.world import World, no_defects

#: What is wrong; the script that finds it; the function, what stands there, what stands there instead.
Place = tuple[Any, str, tuple[tuple[str, str], ...]]
Bug = tuple[str, Script, list[Place]]


def go_on_in_the_last(spool: SpoolWriter, next_: int) -> None:
    """Take the segment that the last opening left for the active one, behind the last frame before any hole."""
    if not spool.segments or not spool.segments[-1].name.startswith("A"):
        return
    last, files = spool.segments[-1], spool.files
    fd = files.open(os.path.join(spool.directory, last.name))
    walked = walk(files, fd, last.header, layout.FIRST_FRAME, last.first, search=False)
    map_ = files.map(fd, files.fstat(fd).st_size)
    file = Prepared(last.name, fd, files.fstat(fd).st_size, last.header.salt, map_.store, map_)
    active = Active(last, file, files.boot_ns(), seal_room(file.size))
    active.named, active.frames, last.end = True, walked.frames, None
    spool.active, spool.frames, spool.end = active, walked.frames, next_
    spool._tail, spool._salt, spool._roll_at = walked.offset, file.salt, 1 << 62
    spool._limit = file.size - active.room


def spill_late(of: lane.Lane, now: int) -> None:
    """What a hand-over left in memory."""
    while not of.live and of.channel.items:
        of.channel.take(of._append_some(of.channel.items, 0, of.channel.first, now), 1 << 62)


BUGS: list[Bug] = [
    (
        "no sync of the directory after a rename", scripts.hand_over,
        [(slots.SlotFile, "create", (("files.sync_directory(os.path.dirname(path))", "pass"),))],
    ),
    (
        "the seek is stored before the acknowledgement", scripts.always,
        [(sender.Sender, "_send",
          (("self.outlet.delivered(flight, indices, epoch)", "pass"),
           ("provider.send(batch)", "self.outlet.delivered(flight, indices, epoch); provider.send(batch)")))],
    ),
    (
        "zeros are written into a segment in use", scripts.meanwhile_in_the_house,
        [(prepared.Prepared, "ready", (("return in_flight is None or in_flight >= MiB", "return True"),)),
         (prepared.Prepared, "usable_until",
          (("return self.size if in_flight is None else in_flight", "return self.size"),)),
         (writer.SpoolWriter, "_take_prepared", (("in_flight is None or wanted <= in_flight", "True"),))],
    ),
    (
        "a delivered segment goes before its seek is on the device", scripts.always,
        [(housekeeper.Housekeeper, "_remove_delivered",
          (("ledger.sync()", "pass"), ("(each.end or 0) <= ledger.synced_next", "True"))),
         (housekeeper.Housekeeper, "_seal",
          (("until = self._ledger.synced_next", "until = self._ledger.next"), ("self._ledger.sync()", "pass")))],
    ),
    (
        "a floor is applied that is not on the device", scripts.prune,
        [(housekeeper.Housekeeper, "_prune", (("lane.publish_head(sync=True)", "lane.publish_head()"),))],
    ),
    (
        "what is pruned is not counted", scripts.prune,
        [(ledger.Ledger, "_move", (("self._count(account, ", "str("), (".bit_count()))", ".bit_count()) or '')")))],
    ),
    (
        "the accounts are in memory only", scripts.always,
        [(ledger.Ledger, "_publish", (("self.slots.write(slot.pack())", "pass"),))],
    ),
    (
        "a recovered segment is appended to", scripts.power_lost_again_and_again,
        [(recovery, "recover",
          (("if found.walked is None:", "if found is known.segments[-1]: continue\n        if not found.walked:"),)),
         (lane.Lane, "__init__",
          (("self.begun_ordinal = spool.ordinal",
            "go_on_in_the_last(spool, slot.next); self.begun_ordinal = spool.ordinal"),))],
    ),
    (
        "hand-over without the lock", scripts.another_thread_writes_while_it_is_handed_over,
        [(sender.Sender, "_leave_live", (("with self.outlet.ledger.lock, lane.lock:", "if True:"),))],
    ),
    (
        "what was in memory is spilled behind new writes", scripts.hand_over,
        [(lane.Lane, "leave_live", (("while channel.items:", "while False:"),)),
         (lane.Lane, "watch",
          (("now = self.files.boot_ns()", "now = self.files.boot_ns(); spill_late(self, now)"),))],
    ),
    (
        "what is purged comes back", scripts.purge,
        [(engine.Engine, "purge", (("lane.publish_head(sync=True)", "pass"), ("ledger.sync()", "pass")))],
    ),
    (
        "what may not be pruned is", scripts.the_device_is_full,
        [(housekeeper.Housekeeper, "_make_space", (('prunes = self._config.on_full == "prune"', "prunes = True"),))],
    ),
    (
        "messages expire before their time", scripts.expired,
        [(outlet.Outlet, "_expired", (("int(limit * 1e9)", "int(limit * 1e7)"),))],
    ),
    (
        "the batch in flight is not spilled", scripts.hand_over,
        [(lane.Lane, "leave_live", (("if flight is not None:", "if False:"),))],
    ),
    (
        "frames are not synced", scripts.always,
        [(segment.Active, "sync", (("files.datasync(fd)", "pass"),))],
    ),
    (
        "a sync that failed is taken for done by the next", scripts.a_sync_fails,
        [(segment.Active, "sync", (("if self.suspect:", "if False:"),))],
    ),
    (
        "a slot that could not be synced is not stored again", scripts.a_sync_fails,
        [(slots.SlotFile, "sync", (("if self._suspect:", "if False:"),))],
    ),
    (
        "an ordinal is wrong", scripts.always,
        [(writer.SpoolWriter, "make_room", (("ordinal=self.ordinal,", "ordinal=self.ordinal + 1,"),))],
    ),
    (
        "a dead letter counts before it is on the device", scripts.rejected,
        [(deadletters.DeadLetters, "_add", (("spool.sync_active()", "pass"),))],
    ),
    (
        "a dead letter is stored twice", scripts.rejected,
        [(deadletters.DeadLetters, "_add", (("if origin not in self._known:", "if True:"),))],
    ),
    (
        "live begins before the spool is read to its end", scripts.hand_over,
        [(outlet.Outlet, "_from_memory", ((" or ledger.next < spool.end", ""),)),
         (outlet.Outlet, "_read", (("position >= until", "True"),))],
    ),
    (
        "what is settled of a batch is forgotten", scripts.half_a_batch,
        [(ledger.Ledger, "begin", (("if settled and not flight.in_memory:", "if False:"),))],
    ),
    (
        "what was in memory is not counted after a kill", scripts.nothing_on_disk,
        [(survey.Survey, "lost_unspooled", (("return max(0, unknown - spooled)", "return 0"),))],
    ),
    (
        "what the head knows to have been spooled is counted as lost as well", scripts.hand_over,
        [(survey.Survey, "lost_unspooled", (("return max(0, unknown - spooled)", "return max(0, unknown)"),))],
    ),
    (
        "a sync leaves what lingers in memory", scripts.linger,
        [(engine.Engine, "sync",
          (("with ledger.lock, lane.lock:\n                lane.flush_gathered()",
            "with ledger.lock, lane.lock:\n                pass"),))],
    ),
    (
        "closing does not sync the seek", scripts.always,
        [(shutdown.Shutdown, "_sync_all", (("engine.ledger.sync()", "pass"),)),
         (housekeeper.Housekeeper, "_sync", (("self._ledger.sync()", "pass"),)),
         (housekeeper.Housekeeper, "_seal", (("self._ledger.sync()", "pass"),))],
    ),
    (
        "messages settled one by one are counted twice", scripts.half_a_batch,
        [(ledger.Ledger, "land", (("if not bits >> index & 1]", "]"), ("not bits\n", "True\n")))],
    ),
    (
        "a slot that is on the device is overwritten while the next is synced", scripts.slots_are_torn,
        [(slots.SlotFile, "sync",
          (("self._written = SLOT_COUNT - self._durable - frozen", "self._written = self._durable"),))],
    ),
    (
        "found: descriptors of an opening that failed stay open", scripts.an_opening_fails,
        [(engine.Engine, "_build",
          (("undo.callback(ledger.slots.close)", "pass"), ("undo.callback(head_file.close)", "pass")))],
    ),
    (
        "found: close() raises where the device fails", scripts.closing_fails,
        [(shutdown.Shutdown, "_attempt", (("except OSError as error:", "except ZeroDivisionError as error:"),))],
    ),
    (
        "found: the sender ends where the seek cannot be stored", scripts.the_seek_cannot_be_stored,
        [(sender.Sender, "_leave_live",
          (("except OSError as error:", "except ZeroDivisionError as error:"),)),
         (sender.Sender, "step", (("except OSError as error:", "except ZeroDivisionError as error:"),))],
    ),
    (
        "found: what close() gives back behind a backlog counts as lost", scripts.handed_back_behind_a_backlog,
        [(shutdown.Shutdown, "_keep_rest", (("slot.returned += ", "slot.lost_live += "),))],
    ),
]  # fmt: skip


#: So many, at the front, that docs/format.md warns of by name.
KINDS = 10
#: With ``MBFRAMEWORK_TEST_MODEL=long`` all of them, else those kinds, and every third of the rest.
PLANTED = BUGS if os.environ.get("MBFRAMEWORK_TEST_MODEL") == "long" else BUGS[:KINDS] + BUGS[KINDS::3]


@pytest.mark.parametrize(("script", "places"), [bug[1:] for bug in PLANTED], ids=[bug[0] for bug in PLANTED])
def test_it_is_caught(script: Script, places: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    options = next(options for each, options in (*scripts.SCRIPTS, *scripts.PLAYED) if each is script)
    for each in (go_on_in_the_last, spill_late):
        monkeypatch.setattr(lane, each.__name__, each, raising=False)
    with ExitStack() as stack:
        for owner, name, changes in places:
            stack.enter_context(planted(owner, name, *changes))
        with pytest.raises(AssertionError) as caught:
            look(script, options)
    print(type(caught.value).__name__, str(caught.value)[:110], getattr(caught.value, "__notes__", [""])[0][:90])


@pytest.mark.parametrize(("script", "options"), scripts.PLAYED, ids=[script.__name__ for script, _ in scripts.PLAYED])
def test_without_a_bug_it_is_well(script: Script, options: dict[str, Any]) -> None:
    look(script, options)


def look(script: Script, options: dict[str, Any]) -> None:
    """At every stop of a script; of those that are only played, at how they end."""
    world = World.begin(1, **options)
    if (script, options) in scripts.SCRIPTS:
        # What it takes to tear two slots at once.
        Explorer(mixtures=range(8 if script is scripts.slots_are_torn else 2)).run(world, script)
        return
    try:
        with no_defects():
            script(world)
    finally:
        world.end()
