"""Fuzzing of what reads, or opens, the directory of a lane."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

from click import unstyle

from mbframework.accounts import accounts_of
from mbframework.browse import Gap as BrowsedGap
from mbframework.browse import LaneBrowser
from mbframework.cli.status import report
from mbframework.deadstore import DeadStore
from mbframework.errors import UnsupportedFormat
from mbframework.monitor.lane import LaneWatch
from mbframework.spool import layout, survey
from mbframework.spool.reader import Gap, Run, SpoolReader
from mbframework.status import BufferStatus, read_lane
from mbframework.verify import check_lane
from tests.fuzz import lanes, narration, resealing
from tests.fuzz.memory import LANE, WALL_NS, Hang
from tests.fuzz.target import Input, Target, opened
from tests.fuzz.truth import Truth
from tests.spool.minilane import Memory, MiniLane

#: Of a journey through a lane: more steps than messages and segments can make.
_STEPS = 40_000


class LaneTarget(Target):
    """A harmed lane. What is read of it must stand in it, intact; of an honest one, it must be what was written."""

    memory = 1 << 20, 80

    def make(self, chance: Random) -> Input:
        lane = lanes.make_lane(chance)
        self.prepare(lane, chance)
        resealed = False
        if chance.random() < 0.97:
            lies = chance.random() < 0.75
            lanes.harm(lane, chance, lies=lies)
            resealed = lies and chance.random() < 0.9 and resealing.reseal(lane)
        facts = {"boot": lane.boot.hex()} | self.options(chance, lane)
        return Input(lane.content(), facts, lane.messages if lane.honest else None, resealed)

    def prepare(self, lane: lanes.Lane, chance: Random) -> None:
        """Add what else is to be read."""

    def options(self, chance: Random, lane: lanes.Lane) -> dict[str, Any]:
        """How it is to be read."""
        return {}


class Reader(LaneTarget):
    """The sender's reader, from any position and with any hint."""

    name = "reader"
    share = 10

    def options(self, chance: Random, lane: lanes.Lane) -> dict[str, Any]:
        segment = chance.choice(lane.segments)
        hints = [0, 4096, 4099, 1 << 40, layout.U64_LIMIT - 1, *segment.frames]
        sequence, ordinal = chance.choice([(1, 0), *lane.ordinals.items()])
        return {
            "next": sequence,
            "ordinal": ordinal,
            "until": chance.choice((None, lane.end, lane.end, layout.U64_LIMIT - 1)),
            "most": chance.choice((1, 3, 1000)),
            "size": chance.choice((1, 300, 1 << 20)),
            "hint": [chance.choice((0, segment.first)), chance.choice(hints)],
        }

    def check(self, given: Input) -> None:
        facts = given.facts
        with opened(given) as files:
            reader = SpoolReader(files, LANE)
            try:
                with suppress(UnsupportedFormat):
                    travel(
                        reader, given.truth, facts["next"], facts["ordinal"], until=facts["until"], most=facts["most"],
                        size=facts["size"], hint=(facts["hint"][0], facts["hint"][1]),
                    )  # fmt: skip
            finally:
                reader.close()


def travel(
    reader: SpoolReader, truth: Truth, position: int, ordinal: int, *, until: int | None, most: int, size: int,
    hint: tuple[int, int],
) -> list[int]:  # fmt: skip
    """Read on to the end, as a sender does; the sequences that were read."""
    got: list[int] = []
    for _ in range(_STEPS):
        found = reader.read(position, ordinal, until=until, max_messages=most, max_bytes=size, hint=hint)
        if found is None:
            return got
        if isinstance(found, Gap):
            assert found.next >= position
            assert found.ordinal >= ordinal
            assert (found.next, found.ordinal) > (position, ordinal), f"{found} at {position} with ordinal {ordinal}"
            assert 0 <= found.lost <= found.ordinal - ordinal
            position, ordinal = found.next, found.ordinal
            continue
        assert found.first == position
        assert 0 < len(found) <= most
        check_run(found, truth)
        got += range(found.first, found.end)
        position, ordinal, hint = found.end, ordinal + len(found), (found.segment, found.offset)
    raise Hang("the reader does not come to an end")


def check_run(run: Run, truth: Truth) -> None:
    """Each message of a run, and that its columns and acceptances agree."""
    rows = zip(
        run.topics, run.keys, run.values, run.header_blocks, run.timestamps, run.partitions, run.accepted, strict=True
    )
    for i, row in enumerate(rows):
        truth.check(run.first + i, row[:6], row[6])
    assert sum(each.count for each in run.acceptances) == len(run)


class Opening(LaneTarget):
    """Recovery, and the life after it: the lane opens, takes messages and gives everything back, in order."""

    name = "opening"
    share = 4
    memory = 1 << 20, 120

    def check(self, given: Input) -> None:
        truth = given.truth
        with opened(given) as files:
            with suppress(UnsupportedFormat):
                survey.survey(files, LANE)
            before = files.content()
            memory = Memory()
            try:
                lane = MiniLane(files, LANE, memory, mapped=False)
            except UnsupportedFormat:
                assert files.content() == before, "a lane of a newer format was touched"
                return
            try:
                position, ordinal = lane.ledger.next, lane.ledger.ordinal
                lane.write(2, 10)
                lane.write(1, 0)
                assert len(memory.appended) == 3
                with suppress(UnsupportedFormat):
                    got = read_on(lane, truth, memory, position, ordinal)
                    assert got[-3:] == sorted(memory.appended), f"{got[-5:]} came of {sorted(memory.appended)}"
                    assert got == sorted(set(got))
                try:
                    lane.close()
                except UnsupportedFormat:
                    # A segment that goes on in a newer format stays unsealed.
                    lane.close(clean=False)
            except BaseException:
                lane.close(clean=False)
                raise


def read_on(lane: MiniLane, truth: Truth, memory: Memory, position: int, ordinal: int) -> list[int]:
    """Everything from the seek on, new messages included."""
    got: list[int] = []
    for _ in range(_STEPS):
        found = lane.reader.read(
            position, ordinal, until=lane.spool.end, max_messages=1000, max_bytes=1 << 20, hint=(0, 0)
        )
        if found is None:
            return got
        if isinstance(found, Gap):
            assert (found.next, found.ordinal) > (position, ordinal)
            position, ordinal = found.next, found.ordinal
            continue
        for i, value in enumerate(found.values):
            sequence = found.first + i
            if sequence in memory.appended:
                assert value == memory.appended[sequence]
            else:
                columns = (found.topics, found.keys, found.values, found.header_blocks, found.timestamps)
                truth.check(sequence, (*(column[i] for column in columns), found.partitions[i]), found.accepted[i])
        got += range(found.first, found.end)
        position, ordinal = found.end, ordinal + len(found)
    raise Hang("the reader does not come to an end")


class Status(LaneTarget):
    """What monitors read: survey and glance, accounts, status, the view and its segments, the events, in words."""

    name = "status"
    share = 2

    def prepare(self, lane: lanes.Lane, chance: Random) -> None:
        lanes.add_narration(lane, chance)
        for name in list(lane.others):
            if name.endswith(".json") and chance.random() < 0.4:
                lane.others[name] = bytearray(narration.distort(bytes(lane.others[name]), chance))
            elif name.endswith(".jsonl") and chance.random() < 0.4:
                lines = bytes(lane.others[name]).split(b"\n")
                lane.others[name] = bytearray(b"\n".join(narration.distort(line, chance) for line in lines))

    def check(self, given: Input) -> None:
        with opened(given) as files:
            with suppress(UnsupportedFormat):
                for known in (survey.survey(files, LANE), survey.glance(files, LANE)):
                    for running in (False, True):
                        for name, count in vars_of(accounts_of(known, running=running, sending=running)):
                            assert 0 <= count < 1 << 66, f"{name} is {count}"
                    assert min(known.size, known.waiting_size, known.count) >= 0
        with opened(given) as files, suppress(UnsupportedFormat):
            problems: list[str] = []
            status = read_lane(files, LANE, "main", problems)
            found = BufferStatus("/buffer", "0" * 32, (status,), tuple(problems))
            json.dumps(found.as_dict(), allow_nan=False).encode()
            lines = list(report(found, WALL_NS / 1e9))
            "\n".join(lines).encode(errors="strict")
            assert all(unstyle(line).isprintable() for line in lines)
        with opened(given) as files, suppress(UnsupportedFormat):
            view = LaneWatch(files, LANE, "main").look([])
            assert all(row.size >= 0 and 0 <= row.done <= 1 for row in view.segments.rows(0, len(view.segments)))
            assert len(view.history) <= 600
            assert view.verdict.text.isprintable()


def vars_of(accounts: Any) -> list[tuple[str, int]]:
    """Its counts by name."""
    return [(name, getattr(accounts, name)) for name in (*accounts.__slots__, "lost", "resident")]


class Verify(LaneTarget):
    """What checks every byte, and what shows the messages by pages."""

    name = "verify"
    share = 2

    def check(self, given: Input) -> None:
        truth = given.truth
        with opened(given) as files:
            check = check_lane(files, LANE, "main")
            for each in check.all_damages:
                assert each.messages >= 0
                assert each.sentence
            assert check.error == "" or files.content() == given.files
        with opened(given) as files, suppress(UnsupportedFormat):
            browser = LaneBrowser(LANE, files)
            self._walk_through(browser, truth)
            last = browser.end
            for entry in browser.before(last, 5):
                if not isinstance(entry, BrowsedGap):
                    truth.check_shown(entry)

    @staticmethod
    def _walk_through(browser: LaneBrowser, truth: Truth) -> None:
        at = browser.first
        for _ in range(_STEPS):
            page = browser.page(at, 1000)
            if not page:
                return
            for entry in page:
                if isinstance(entry, BrowsedGap):
                    assert at <= entry.first <= entry.last + 1
                    at = max(at, entry.last + 1)
                    continue
                assert entry.sequence >= at
                truth.check_shown(entry)
                at = entry.sequence + 1
        raise Hang("the pages do not come to an end")


class Dead(LaneTarget):
    """The dead letters: read, dropped, tidied; a letter that was dropped is never seen again."""

    name = "dead letters"
    share = 2

    def prepare(self, lane: lanes.Lane, chance: Random) -> None:
        lanes.add_dropped(lane, chance)

    def options(self, chance: Random, lane: lanes.Lane) -> dict[str, Any]:
        return {"drop": [chance.randrange(1, lane.end + 1) for _ in range(chance.randrange(4))]}

    def check(self, given: Input) -> None:
        truth = given.truth
        with opened(given) as files, suppress(UnsupportedFormat):
            store = DeadStore(files, LANE)
            before = []
            for letter in store.letters():
                assert 0 < letter.id < layout.U64_LIMIT
                before.append(letter.id)
                if not letter.headers and not letter.reason:
                    truth.check_letter(letter.id, (letter.topic, letter.key, letter.value))
            if given.messages is not None:
                # Segments that lie of where they begin may overlap.
                assert before == sorted(set(before))
            wanted = given.facts["drop"]
            store.drop(wanted)
            after = [letter.id for letter in store.letters()]
            assert after == [each for each in before if each not in wanted]
            store.tidy(lambda _sequence: True)
            if given.messages is not None:
                # A header that lies of its neighbours' ends may hide them when those between are gone.
                assert [letter.id for letter in store.letters()] == after
