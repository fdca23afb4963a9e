"""A lane's directory as the engine leaves it, small, and then harmed.

Promises: the bytes are made by the engine's own encoders, each message is known. A lane of which no checksum was made
right again, and no name changed, is ``honest``: what can be read of it must be what was written.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from random import Random

from mbframework import history
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, pack_headers
from mbframework.spool import frame, head, layout, seal, seek
from mbframework.spool.record import close_record
from mbframework.spool.segment_header import SegmentHeader
from tests.fuzz import mutation, narration, untruths
from tests.fuzz.memory import BOOT, NOW_NS, WALL_NS
from tests.fuzz.reference import Said

BUFFER = b"I" * 16
RUN = b"R" * 16
OTHER_BOOT = b"O" * 16
_TOPICS = ("t", "orders", "ein Thema")


@dataclass
class Segment:
    """A segment's bytes, and where its parts begin: offset → length."""

    name: str
    data: bytearray
    salt: int
    first: int
    ordinal: int
    end: int
    frames: dict[int, int] = field(default_factory=dict)
    seal: int = 0


@dataclass
class Lane:
    """A directory: path → content. ``messages``: what was written, by sequence."""

    segments: list[Segment] = field(default_factory=list)
    others: dict[str, bytearray] = field(default_factory=dict)
    messages: dict[int, Said] = field(default_factory=dict)
    #: Of spooled messages: sequence → ordinal.
    ordinals: dict[int, int] = field(default_factory=dict)
    next: int = 1
    ordinal: int = 0
    end: int = 1
    honest: bool = True
    boot: bytes = BOOT

    def content(self) -> dict[str, bytes]:
        """Every file."""
        found = {segment.name: bytes(segment.data) for segment in self.segments}
        return found | {name: bytes(data) for name, data in self.others.items()}


def make_lane(chance: Random, most: int = 3) -> Lane:
    """A lane with segments, a head and a seek that agree with each other."""
    lane = Lane(boot=chance.choice((BOOT, BOOT, OTHER_BOOT)))
    count = chance.randrange(1, most + 1)
    for number in range(count):
        states = {"P": 1} if number < count - 1 else {"P": 2, "A": 4, "N": 2}
        add_segment(lane, chance, mutation.pick(chance, states))
    if chance.random() < 0.2:
        salt = chance.randrange(1, 1 << 32)
        lane.others[layout.prepared_name(salt)] = bytearray(8192)
    slots = _seeks(lane, chance)
    lane.others[layout.SEEK_FILE] = _slot_file([slot.pack() for slot in slots], seek.SEEK_FILE_SIZE)
    heads = _heads(lane, chance)
    data = _slot_file([slot.pack() for slot in heads], head.HEAD_FILE_SIZE)
    last = lane.segments[-1]
    tail = max(last.frames, default=0)
    page = head.LivePage(RUN, BOOT, lane.next, slots[-1].next, last.first, tail, NOW_NS, chance.randrange(2))
    data[head.LIVE_PAGE : head.LIVE_PAGE + head.LIVE_SIZE] = head.pack_live(page)
    lane.others[layout.HEAD_FILE] = data
    lane.others[layout.WRITER_LOCK_FILE] = bytearray(b'{"pid": 1}')
    return lane


def add_segment(lane: Lane, chance: Random, state: str) -> Segment:
    """One more segment: ``state`` P sealed, A not, N not even named."""
    first = max(lane.next, lane.end) + chance.choice((0, 0, 0, 1, 7))
    salt = chance.randrange(1, 1 << 32)
    header = SegmentHeader(
        salt=salt, buffer_id=BUFFER, run=RUN, first=first, ordinal=lane.ordinal, previous_end=lane.end, wall_ns=WALL_NS,
        boot_ns=NOW_NS - 10**9, boot_id=lane.boot, reserved=1 << 16, lane="main",
    )  # fmt: skip
    data = bytearray(header.pack().ljust(layout.FIRST_FRAME, b"\0"))
    made = Segment("", data, salt, first, lane.ordinal, first)
    for _ in range(chance.randrange(0 if state != "P" else 1, 6)):
        count = chance.choice((1, 1, 1, 1, 2, 5))
        messages = [make_message(chance, accepted=NOW_NS - 10**6 + made.end) for _ in range(count)]
        raw = encode(chance, salt, made.end, messages)
        made.frames[len(data)] = len(raw)
        data += raw
        for message in messages:
            lane.messages[made.end], lane.ordinals[made.end] = message, lane.ordinal
            made.end += 1
            lane.ordinal += 1
    if state == "P":
        made.seal = len(data)
        crcs = [zlib.crc32(data, salt)] if chance.random() < 0.7 else []
        totals = (made.end - first, len(made.frames)) if crcs else (0, 0)
        data += seal.pack(seal.Seal(made.end, *totals, NOW_NS, NOW_NS, 0, len(data), crcs), salt)
        made.name = layout.sealed_name(first)
    else:
        data += bytes(chance.choice((0, 8, 512, 4096)))
        made.name = layout.unsealed_name(first) if state == "A" else layout.prepared_name(salt)
    lane.segments.append(made)
    lane.next = lane.end = made.end
    return made


def make_message(chance: Random, accepted: int) -> Said:
    """Any message, small."""
    value = chance.choice((None, b"", b"v", chance.randbytes(chance.randrange(60)), b"MBF1" * 3))
    key = chance.choice((None, None, b"", b"key"))
    block = pack_headers([("name", b"value"), ("", None)]) if chance.random() < 0.2 else None
    timestamp = WALL_NS if chance.random() < 0.2 else NO_TIMESTAMP
    partition = 3 if chance.random() < 0.2 else NO_PARTITION
    return Said(chance.choice(_TOPICS), key, value, block, timestamp, partition, accepted)


def encode(chance: Random, salt: int, first: int, messages: list[Said]) -> bytes:
    """A frame of these messages, which all count as accepted with the first."""
    head_ = messages[0]
    messages[:] = [message._replace(accepted=head_.accepted) for message in messages]
    if len(messages) == 1 and chance.random() < 0.8:
        return frame.encode_one(
            salt,
            first,
            head_.accepted,
            head_.topic.encode(),
            head_.key,
            head_.value,
            head_.header_block,
            head_.timestamp,
            head_.partition,
        )
    topics, keys, values, blocks, timestamps, partitions, _ = zip(*messages, strict=True)
    names = [topic.encode() for topic in topics]
    return frame.encode_many(salt, first, head_.accepted, names, values, keys, blocks, timestamps, partitions)


def _seeks(lane: Lane, chance: Random) -> list[seek.SeekSlot]:
    spooled = [*lane.ordinals.items(), (lane.end, lane.ordinal)]
    slots = []
    for generation in range(1, chance.randrange(1, 4) + 1):
        next_, ordinal = chance.choice(spooled)
        holder = next((each for each in lane.segments if each.first <= next_ < each.end), None)
        bits = chance.randrange(1 << min(4, lane.ordinal - ordinal))
        slots.append(
            seek.SeekSlot(
                generation=generation,
                run=RUN,
                next=next_,
                ordinal=ordinal,
                buffer_id=BUFFER,
                delivered=ordinal,
                segment=holder.first if holder else 0,
                offset=min(holder.frames) if holder else 0,
                epoch=1,
                bits_used=bits.bit_length(),
                bitmap=bits.to_bytes(seek.BITMAP_SIZE, "little"),
            )
        )
    return slots


def _heads(lane: Lane, chance: Random) -> list[head.HeadSlot]:
    last = lane.segments[-1]
    flags = chance.choice((0, 0, head.CLEAN, head.LIVE))
    return [
        head.HeadSlot(
            generation=generation,
            buffer_id=BUFFER,
            run=RUN,
            boot_id=lane.boot,
            next=lane.next,
            reserved_until=lane.next + (1 << 24),
            run_first=1,
            ordinal=lane.ordinal,
            checkpoint_segment=last.first,
            checkpoint_offset=max(last.frames, default=0),
            synced_segment=last.first,
            synced_offset=min(last.frames, default=layout.FIRST_FRAME),
            accepted=lane.ordinal,
            wall_ns=WALL_NS,
            boot_ns=NOW_NS,
            epoch=1,
            flags=flags,
        )
        for generation in range(1, chance.randrange(1, 4) + 1)
    ]


def _slot_file(slots: list[bytes], size: int) -> bytearray:
    data = bytearray(size)
    for place, raw in enumerate(slots):
        data[place * layout.SLOT_STRIDE : place * layout.SLOT_STRIDE + len(raw)] = raw
    return data


# ---- narration and the small files beside it


def add_narration(lane: Lane, chance: Random) -> None:
    """Status files, event files and rings."""
    for name in (layout.WRITER_STATUS_FILE, layout.SENDER_STATUS_FILE):
        lane.others[name] = bytearray(narration.status_file(chance))
    for name in (layout.WRITER_EVENTS_FILE, layout.SENDER_EVENTS_FILE):
        lane.others[name] = bytearray(b"".join(narration.event_line(chance) for _ in range(chance.randrange(6))))
    for name in (history.WRITER_FILE, history.SENDER_FILE):
        lane.others[name] = bytearray(make_ring(chance, name))


def make_ring(chance: Random, name: str) -> bytes:
    """A ring with a few records."""
    data = bytearray(history.FILE_SIZE)
    data[: history.HEADER_SIZE] = history.pack_header(name, BOOT, RUN)
    number = chance.choice((1, 590, 600, 10**6))
    for each in range(number, number + chance.randrange(1, 20)):
        at = history.place_of(each)
        record = history.Record(each, RUN[:8], NOW_NS - 10**9, WALL_NS - 10**9, (each, each * 10, 3, 30))
        data[at : at + history.RECORD_SIZE] = history.pack_record(record)
    return bytes(data)


def add_dropped(lane: Lane, chance: Random) -> None:
    """Files that say which dead letters were dropped."""
    for number in range(1, chance.randrange(3) + 1):
        records = []
        for _ in range(chance.randrange(4)):
            segment = chance.choice(lane.segments)
            first = chance.randrange(segment.first, segment.end + 1)
            raw = first.to_bytes(8, "little") + (first + chance.randrange(4)).to_bytes(8, "little")
            records.append(close_record(raw + segment.salt.to_bytes(4, "little")))
        lane.others[f"dropped.{number}"] = bytearray(b"".join(records))


# ---- harm


def harm(lane: Lane, chance: Random, *, lies: bool) -> None:
    """Some harm to one or a few of the files; ``lies``: with checksums made right again."""
    lane.honest = not lies
    mutation.several(chance, lambda: _harm_one(lane, chance, lies=lies))


def _harm_one(lane: Lane, chance: Random, *, lies: bool) -> None:
    part = mutation.pick(chance, {"segment": 6, "slots": 3, "file": 1})
    if part == "segment" and lane.segments:
        segment = chance.choice(lane.segments)
        if not lies:
            harm_segment(segment, chance)
        else:
            mutation.pick(chance, untruths.OF_SEGMENTS)(lane, segment, chance)
    elif part == "slots":
        name = chance.choice((layout.HEAD_FILE, layout.SEEK_FILE))
        if name in lane.others:
            harm_slots(lane.others[name], name, chance, lies=lies)
    elif lane.others:
        _harm_file(lane, chance, lies=lies)


def harm_segment(segment: Segment, chance: Random) -> None:
    """Damage where it hurts: in the header, in a frame, in the seal, at the end."""
    data = segment.data
    where = mutation.pick(chance, {"header": 2, "frame": 6, "seal": 2, "anywhere": 1, "size": 1})
    if where == "header":
        mutation.damage(data, chance, 0, 256)
    elif where == "frame":
        mutation.damage(data, chance, layout.FIRST_FRAME)
    elif where == "seal" and segment.seal:
        mutation.damage(data, chance, segment.seal)
    elif where == "size":
        mutation.resize(data, chance)
    else:
        mutation.damage(data, chance)


def harm_slots(data: bytearray, name: str, chance: Random, *, lies: bool) -> None:
    """One slot of a head or a seek, or the live page."""
    at = chance.randrange(layout.SLOT_COUNT) * layout.SLOT_STRIDE
    fields = mutation.HEAD if name == layout.HEAD_FILE else mutation.SEEK
    if name == layout.HEAD_FILE and chance.random() < 0.3:
        mutation.change_field(data, head.LIVE_PAGE, mutation.LIVE, chance)
    elif lies:
        mutation.several(chance, lambda: mutation.change_field(data, at, fields, chance))
        mutation.reseal_record(data, at, at + layout.SLOT_SIZE)
    elif chance.random() < 0.8:
        mutation.damage(data, chance, at, at + layout.SLOT_SIZE)
    else:
        mutation.resize(data, chance)


def harm_ring(data: bytearray, chance: Random) -> None:
    """The header of a ring or one of its records, whose checksum is made right again."""
    if chance.random() < 0.3:
        mutation.change_field(data, 0, mutation.RING_HEADER, chance)
        mutation.reseal_record(data, 0, history.HEADER_SIZE)
    else:
        at = history.place_of(chance.randrange(1, 30))
        mutation.change_field(data, at, mutation.RING_RECORD, chance)
        mutation.reseal_record(data, at, at + history.RECORD_SIZE)


def _harm_file(lane: Lane, chance: Random, *, lies: bool) -> None:
    name = chance.choice(list(lane.others))
    how = chance.randrange(4)
    if how == 0:
        del lane.others[name]
    elif how == 1:
        mutation.resize(lane.others[name], chance)
    elif name in (history.WRITER_FILE, history.SENDER_FILE) and lies:
        harm_ring(lane.others[name], chance)
    elif name.startswith("dropped") and lies:
        data = lane.others[name]
        if len(data) >= 24:
            at = chance.randrange(len(data) // 24) * 24
            mutation.change_field(data, at, ((0, 8), (8, 8), (16, 4)), chance)
            mutation.reseal_record(data, at, at + 24)
    else:
        mutation.damage(lane.others[name], chance)
