"""The machinery finds what it is there for: each of these bugs, planted into the engine, is caught."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from mbframework import deadletters, engine, housekeeper, lane, ledger, outlet, sender, shutdown
from mbframework.spool import prepared, segment, slots, survey, writer
from tests.model import scripts
from tests.model.explore import Explorer, Script
from tests.model.planting import planted
from tests.model.world import World

#: What is wrong; the script that finds it; the function, what stands there, what stands there instead.
Place = tuple[Any, str, tuple[tuple[str, str], ...]]
Bug = tuple[str, Script, list[Place]]
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
        "the batch in flight is not spilled", scripts.hand_over,
        [(lane.Lane, "leave_live", (("if flight is not None:", "if False:"),))],
    ),
    (
        "the accounts are in memory only", scripts.always,
        [(ledger.Ledger, "_publish", (("self.slots.write(slot.pack())", "pass"),))],
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
]  # fmt: skip


@pytest.mark.parametrize(("script", "places"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_it_is_caught(script: Script, places: list[Place]) -> None:
    options = next(options for each, options in scripts.SCRIPTS if each is script)
    with ExitStack() as stack:
        for owner, name, changes in places:
            stack.enter_context(planted(owner, name, *changes))
        with pytest.raises(BaseException) as caught:
            Explorer(mixtures=2).run(World.begin(1, **options), script)
    print(type(caught.value).__name__, str(caught.value)[:110], getattr(caught.value, "__notes__", [""])[0][:90])
