"""What is said of a message in one line of a list, and above the list.

Pure: figures in, lines out; widths are cells. Times are local time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len

from mbframework.browse import Entry, Gap
from mbtui.figures import size as size_text
from mbtui.glyphs import Glyphs
from mbtui.ink import Ink, Line, clean, crop
from mbtui.preview import one_line

#: From this width on words are written in full, and the beginning of the value is shown.
WIDE: Final = 100

MARK_INKS: Mapping[str, Ink] = {"delivered": "dim", "next": "note", "pending": ""}
MEANINGS: Mapping[str, str] = {
    "delivered": "delivered, or settled otherwise: expired, purged, or a dead letter",
    "next": "the next one to be delivered",
    "pending": "it waits",
}
_MARKS: Mapping[str, tuple[str, str]] = {"delivered": ("✓", "v"), "next": ("▶", ">"), "pending": ("·", ".")}


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` cells; ``right``: the text stands at the right."""

    title: str
    width: int
    right: bool = False


def mark(word: str, glyphs: Glyphs, *, wide: bool) -> str:
    """A sign and the word, or its first letter."""
    sign = _MARKS[word][glyphs.ascii]
    return f"{sign} {word}" if wide else f"{sign} {word[0]}"


def moment(ns: int | None, *, date: bool) -> str:
    """Local time with milliseconds; "?" where that cannot be told."""
    if ns is None:
        return "?"
    try:
        then = time.localtime(ns // 1_000_000_000)
    except (OverflowError, ValueError, OSError):
        return "?"
    text = f"{time.strftime('%H:%M:%S', then)}.{ns // 1_000_000 % 1000:03d}"
    return f"{time.strftime('%Y-%m-%d', then)} {text}" if date else text


def message_columns(width: int, last: int) -> list[Column]:
    """The columns that fit, up to the sequence ``last``."""
    wide = width >= WIDE
    digits = max(8, len(f"{last:,}"))
    fixed = [
        Column("", 11 if wide else 3),
        Column("sequence", digits, right=True),
        Column("accepted", 23 if wide else 12),
        Column("size", 8, right=True),
    ]
    left = width - sum(column.width + 1 for column in fixed) - 1
    if not wide:
        topic = left * 11 // 20
        return [*fixed[:3], Column("topic", topic), Column("key", left - topic), fixed[3]]
    topic, key = min(24, left * 3 // 10), min(24, left * 3 // 10)
    return [*fixed[:3], Column("topic", topic), Column("key", key), fixed[3], Column("value", left - topic - key - 1)]


def row_line(columns: Sequence[Column], cells: Sequence[Line]) -> Line:
    """The cells, each cut or filled up to its column, one blank between them."""
    pieces: list[tuple[str, Ink]] = []
    for column, cell in zip(columns, cells, strict=True):
        cut = crop(cell, column.width, "")
        blank = " " * (column.width - sum(cell_len(text) for text, _ in cut))
        pieces += [(blank, ""), *cut] if column.right else [*cut, (blank, "")]
        pieces.append((" ", ""))
    return tuple(pieces)


def heading(columns: Sequence[Column]) -> Line:
    """Their titles."""
    return row_line(columns, [((column.title, ""),) for column in columns])


def message_line(sequence: int, row: Entry | Gap | None, word: str, columns: Sequence[Column], glyphs: Glyphs) -> Line:
    """One message, one that cannot be read, or one that is on its way (None)."""
    wide = columns[0].width > 3
    number: Line = ((f"{sequence:,}", ""),)
    if isinstance(row, Gap):
        sign = glyphs.segments["damaged"]
        place = row_line(columns[:2], [((f"{sign} {'missing' if wide else 'm'}", "bad"),), number])
        return (*place, (clean(row.why), "bad"))
    if row is None:
        return (*row_line(columns[:2], [(), number]), (glyphs.ellipsis, "dim"))
    room = {column.title: column.width for column in columns}
    cells: dict[str, Line] = {
        "": ((mark(word, glyphs, wide=wide), MARK_INKS[word]),),
        "sequence": number,
        "accepted": ((moment(row.accepted, date=wide), ""),),
        "topic": one_line(row.topic, room["topic"], ascii=glyphs.ascii),
        "key": _bytes(row.key, room["key"], glyphs),
        "size": ((size_text(row.size), ""),),
        "value": _bytes(row.value, room.get("value", 0), glyphs),
    }
    return row_line(columns, [cells[column.title] for column in columns])


def _bytes(data: bytes | None, width: int, glyphs: Glyphs) -> Line:
    if data is None:
        return (("none"[:width], "dim"),)
    return one_line(data, width, ascii=glyphs.ascii)


def facts_of(entry: Entry) -> tuple[tuple[str, str | bytes], ...]:
    """What the preview says beside the value."""
    facts: list[tuple[str, str | bytes]] = [("topic", entry.topic)]
    facts.append(("key", entry.key if entry.key is not None else "none"))
    facts.append(("accepted", moment(entry.accepted, date=True)))
    if entry.timestamp is not None:
        facts.append(("timestamp", moment(entry.timestamp, date=True)))
    if entry.partition is not None:
        facts.append(("partition", str(entry.partition)))
    facts.append(("value", size_text(entry.value_size)))
    return (*facts, *header_facts(entry.headers))


def header_facts(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | bytes]]:
    """Headers by their names; a name comes from elsewhere as much as its value does."""
    return [("header", clean(name).encode() + b"=" + (b"" if value is None else value)) for name, value in headers]
