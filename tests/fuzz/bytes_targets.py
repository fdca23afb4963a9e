"""Fuzzing of the pure functions on bytes: frames, headers, seals, slots, rings, header blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from mbframework import history
from mbframework.errors import UnsupportedFormat
from mbframework.message import pack_headers, unpack_headers
from mbframework.monitor.history import Now, course_of
from mbframework.spool import frame, head, layout, seal, seek, segment_header, several, singles
from tests.fuzz import lanes, mutation, reference
from tests.fuzz.memory import BOOT, LANE, NOW_NS, WALL_NS, MemoryFiles
from tests.fuzz.target import Input, Target

FIRST = 100


class Frames(Target):
    """The frame reader, and those for many frames at once: against the decoder of :mod:`tests.fuzz.reference`."""

    name = "frame"
    share = 40

    def make(self, chance: Random) -> Input:
        salt, data, at = chance.randrange(1, 1 << 32), bytearray(), FIRST
        starts, messages = [], {}
        for _ in range(chance.randrange(1, 6)):
            some = [lanes.make_message(chance, NOW_NS + at) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
            starts.append(len(data))
            data += lanes.encode(chance, salt, at, some)
            for message in some:
                messages[at] = message
                at += 1
        lies = chance.random() < 0.72
        mutation.several(chance, lambda: self._harm(data, chance, starts, salt, lies=lies))
        resealed = lies and chance.random() < 0.9
        if resealed:
            mutation.reseal_frames(data, starts, salt)
        return Input({"frames": bytes(data)}, {"salt": salt}, None if lies else messages, resealed)

    def _harm(self, data: bytearray, chance: Random, starts: list[int], salt: int, *, lies: bool) -> None:
        at = chance.choice(starts)
        how = chance.randrange(4)
        if not lies:
            (mutation.resize if how == 0 else mutation.damage)(data, chance)
            return
        if how <= 1:
            mutation.change_field(data, at, mutation.FRAME, chance)
        elif how == 2:
            mutation.poke(data, at + 40 + chance.randrange(24), chance.choice((2, 4)), chance)
        else:
            mutation.damage(data, chance, at + 40, at + 140)
        mutation.reseal_frame(data, at, salt, body=chance.random() < 0.9)

    def check(self, given: Input) -> None:
        data, salt = given.files["frames"], given.facts["salt"]
        at = frame.find_marker(data, 0)
        assert at == next((each for each in range(0, len(data), 8) if data[each : each + 4] == b"MBF1"), -1)
        for offset in range(0, len(data) + 8, 8):
            self._check_at(given, data, offset, salt)

    def _check_at(self, given: Input, data: bytes, offset: int, salt: int) -> None:
        expected: reference.Framed | None = None
        unknown = refused = False
        found: frame.Columns | None = None
        try:
            expected = reference.frame_at(data, offset, salt)
        except reference.Unknown:
            unknown = True
        try:
            found = frame.decode(data, offset, salt)
        except UnsupportedFormat:
            refused = True
        assert unknown == refused, f"at {offset}: {found} instead of {expected}"
        assert (found is None) == (expected is None), f"at {offset}: {found} instead of {expected}"
        if found is None or expected is None:
            return
        assert (found.first, found.count) == (expected.first, len(expected.messages))
        told = messages_of(found, found.accepted)
        assert told == expected.messages, f"at {offset}: {told} instead of {expected.messages}"
        if given.messages is not None:
            assert [given.messages[found.first + i] for i in range(found.count)] == told
        self._check_singles(data, offset, salt, expected.first)
        self._check_several(data, offset, salt, expected.first)

    def _check_singles(self, data: bytes, offset: int, salt: int, first: int) -> None:
        found = singles.decode_singles(data, offset, salt, first, 1000, 1 << 20)
        columns = (
            found.topics, found.keys, found.values, found.header_blocks, found.timestamps, found.partitions,
            found.accepted,
        )  # fmt: skip
        told: list[reference.Said] = []
        at, size = offset, 0
        with suppress(reference.Unknown):
            while (each := reference.frame_at(data, at, salt)) is not None:
                if not each.is_single or each.first != first + len(told):
                    break
                told += each.messages
                size += each.length
                at = (at + each.length + 7) // 8 * 8
        assert [reference.Said(*row) for row in zip(*columns, strict=True)] == told
        assert (found.offset, found.size) == (at, size)

    def _check_several(self, data: bytes, offset: int, salt: int, first: int) -> None:
        found = several.decode_several(data, offset, salt, first, 1000, 1 << 20)
        accepted = [moment for moment, count in zip(found.moments, found.counts, strict=True) for _ in range(count)]
        columns = (
            found.topics, found.keys, found.values, found.header_blocks, found.timestamps, found.partitions, accepted,
        )  # fmt: skip
        told: list[reference.Said] = []
        at, size = offset, 0
        with suppress(reference.Unknown):
            while (each := reference.frame_at(data, at, salt)) is not None:
                if len(each.messages) < 2 or each.first != first + len(told):
                    break
                told += each.messages
                size += each.length
                at = (at + each.length + 7) // 8 * 8
        assert [reference.Said(*row) for row in zip(*columns, strict=True)] == told
        assert (found.offset, found.size) == (at, size)


def messages_of(columns: frame.Columns, accepted: int) -> list[reference.Said]:
    """What decoded columns say, message by message."""
    rows = zip(
        columns.topics, columns.keys, columns.values, columns.header_blocks, columns.timestamps, columns.partitions,
        [accepted] * columns.count, strict=True,
    )  # fmt: skip
    return [reference.Said(*row) for row in rows]


class Slots(Target):
    """The slots of head and seek, and the live page: what is accepted packs to the same bytes again."""

    name = "slots"
    share = 20

    def make(self, chance: Random) -> Input:
        lane = lanes.make_lane(chance, 1)
        name = chance.choice((layout.HEAD_FILE, layout.SEEK_FILE))
        lies = chance.random() < 0.66
        mutation.several(chance, lambda: lanes.harm_slots(lane.others[name], name, chance, lies=lies))
        return Input({name: bytes(lane.others[name])}, resealed=lies)

    def check(self, given: Input) -> None:
        ((name, data),) = given.files.items()
        newest: Callable[[bytes], tuple[Any, int, bool]] = seek.newest if name == "seek" else head.newest
        with suppress(UnsupportedFormat):
            slot, index, _ = newest(data[: head.LIVE_PAGE])
            if slot is not None:
                at = index * layout.SLOT_STRIDE
                packed = slot.pack()
                assert data[at : at + 4] == packed[:4]
                assert newest(packed) == (slot, 0, False)
                others = (data[each : each + layout.SLOT_SIZE] for each in range(0, head.LIVE_PAGE, layout.SLOT_STRIDE))
                known = [each for each in map(self._unpack(name), others) if each is not None]
                assert slot.generation == max(each.generation for each in known)
        page = head.unpack_live(data[head.LIVE_PAGE :])
        if page is not None:
            at = head.LIVE_PAGE
            assert head.pack_live(page) == data[at : at + head.LIVE_SIZE]

    @staticmethod
    def _unpack(name: str) -> Callable[[bytes], Any]:
        return seek.unpack_slot if name == "seek" else head.unpack_slot


class SegmentHeaders(Target):
    """The header of a segment: what is accepted packs to what was read, but for what has no meaning."""

    name = "segment header"
    share = 16

    def make(self, chance: Random) -> Input:
        lane = lanes.Lane()
        data = lanes.add_segment(lane, chance, "A").data[:256]
        mutation.several(chance, lambda: mutation.change_field(data, 0, mutation.SEGMENT, chance))
        if resealed := chance.random() < 0.7:
            mutation.reseal_record(data, 0, 256)
        elif chance.random() < 0.3:
            mutation.resize(data, chance)
        return Input({"header": bytes(data)}, resealed=resealed)

    def check(self, given: Input) -> None:
        data = given.files["header"]
        with suppress(UnsupportedFormat):
            header = segment_header.unpack(data)
            if header is not None:
                assert reference.salt_of(data) == header.salt
                assert segment_header.unpack(header.pack()) == header


class Seals(Target):
    """The seal and its trailer."""

    name = "seal"
    share = 16

    def make(self, chance: Random) -> Input:
        lane = lanes.Lane()
        segment = lanes.add_segment(lane, chance, "P")
        data, salt = segment.data[segment.seal :], segment.salt
        for _ in range(chance.randrange(4)):
            mutation.change_field(data, 0, mutation.SEAL_BODY if chance.random() < 0.7 else mutation.FRAME, chance)
        if chance.random() < 0.3:
            mutation.poke(data, len(data) - 16, 8, chance)
        if resealed := chance.random() < 0.7:
            mutation.reseal_seal(data, 0, salt)
        else:
            mutation.damage(data, chance)
        return Input({"seal": bytes(data)}, {"salt": salt}, resealed=resealed)

    def check(self, given: Input) -> None:
        data, salt = given.files["seal"], given.facts["salt"]
        at = seal.read_trailer(data[-seal.TRAILER_SIZE :], salt)
        assert at is None or (layout.FIRST_FRAME <= at < layout.U64_LIMIT and not at % 8)
        with suppress(UnsupportedFormat):
            found = seal.unpack(data, 0, salt)
            if found is not None:
                assert len(found.crcs) in (0, seal.crc_count(found.offset))
                assert reference.frame_at(data, 0, salt) == reference.Framed(
                    found.end, seal.size(len(found.crcs)), 16, []
                )


class Rings(Target):
    """The rings of history, read by a monitor, and gone on with by a writer."""

    name = "history"
    share = 2

    def make(self, chance: Random) -> Input:
        name = chance.choice((history.WRITER_FILE, history.SENDER_FILE))
        data = bytearray(lanes.make_ring(chance, name))

        lies = chance.random() < 0.66

        def harm() -> None:
            if lies:
                lanes.harm_ring(data, chance)
            elif chance.random() < 0.7:
                mutation.damage(data, chance, 0, 3000)
            else:
                mutation.resize(data, chance)

        mutation.several(chance, harm, 8)
        return Input({name: bytes(data)}, resealed=lies)

    def check(self, given: Input) -> None:
        ((name, data),) = given.files.items()
        with suppress(UnsupportedFormat):
            past = history.decode(data, name)
            if past is not None:
                numbers = [record.number for record in past.records]
                assert numbers == sorted(set(numbers))
                for points in (course_of(past, None, NOW), course_of(None, past, NOW), course_of(past, past, NOW)):
                    assert all(each.accepted >= 0 and each.delivered >= 0 and each.resident >= 0 for each in points)
                    assert [each.at for each in points] == sorted(each.at for each in points)
        files = MemoryFiles(given.files)
        history.Ring(files, LANE, name).put((1, 2, 3, 4))
        after = history.decode(files.content()[name], name)
        assert after is not None
        assert after.records[-1].counters == (1, 2, 3, 4)


NOW = Now(NOW_NS, WALL_NS, BOOT)


class HeaderBlocks(Target):
    """A message's headers."""

    name = "header block"
    share = 8

    def make(self, chance: Random) -> Input:
        data = bytearray(pack_headers([("name", b"value"), ("ä", None), ("", b"")][: chance.randrange(1, 4)]))
        mutation.several(chance, lambda: mutation.damage(data, chance))
        return Input({"block": bytes(data)})

    def check(self, given: Input) -> None:
        try:
            headers = unpack_headers(given.files["block"])
        except ValueError:
            return
        size = sum(6 + len(name.encode()) + len(value or b"") for name, value in headers)
        assert size <= max(0, len(given.files["block"]) - 2)
