"""One segment: what it is, its messages, and the one under the cursor in full.

Promises
--------
- Pages of the file are read, never the whole; the check, which does read the whole, runs beside them, once.
- A segment that grows is followed; one that is delivered or pruned meanwhile says so, and what was read stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import work

from mbframework.browse import Gap, SegmentInfo
from mbframework.errors import MessageBufferError
from mbframework.files import Files
from mbtui.browse_screen import BACK, COPY, HELP, NEXT, PREVIOUS, QUIT, SEARCH, THEME, VIEW, BrowseScreen
from mbtui.dialogs import Ask
from mbtui.ink import Line
from mbtui.keys import Key
from mbtui.message_lines import MARK_INKS, MEANINGS, facts_of, heading, mark, message_columns, message_line
from mbtui.message_list import reason
from mbtui.pattern import Pattern
from mbtui.preview_pane import Shown
from mbtui.segment_lines import segment_lines
from mbtui.segment_source import Facts, Row, SegmentSource


class SegmentScreen(BrowseScreen[Row]):
    """The segment that begins at sequence ``first`` in the lane's directory ``lane_path``. Row i is the message with
    sequence ``first`` + i: within a segment they have no gaps."""

    EMPTY = "no message"
    KEYS: ClassVar[tuple[Key, ...]] = (
        HELP,
        VIEW,
        Key("colon,J", ":", "jump", "jump to a sequence (J does the same)", "jump"),
        Key("T", "T", "tail", "to the tail, and stay there while the segment grows", "tail"),
        Key("u", "u", "undelivered", "to the next undelivered message", "undelivered"),
        SEARCH,
        NEXT,
        PREVIOUS,
        COPY,
        THEME,
        QUIT,
        BACK,
    )

    def __init__(self, lane_path: str, first: int, *, files: Files | None = None) -> None:
        super().__init__()
        self._source = SegmentSource(lane_path, first, files)
        self._first = first
        buffer, lane = os.path.split(lane_path.rstrip("/"))
        self._place = f"{os.path.basename(buffer)}/{lane}"
        self._facts: Facts | None = None
        self._check: SegmentInfo | str | None = None
        self._checking = self._gone = self._follows = False

    def on_unmount(self) -> None:
        self._source.close()

    async def look(self) -> None:
        facts = await self._source.facts()
        if facts is None:
            if not self._gone:
                self._gone = True
                self.say(
                    "the segment is gone: delivered, purged or pruned; what was read is still here, esc leaves", "warn"
                )
            return
        if self._gone:
            self._gone = False
            self.say("")
            self.list.reload()
        grown = self._facts is not None and facts.end > self._facts.end
        marks = self._facts is None or (facts.settled, facts.scattered) != (self._facts.settled, self._facts.scattered)
        self._facts = facts
        self.list.set_total(facts.messages)
        if marks:
            self.list.refresh()
        if grown and self._follows:
            self.list.jump(facts.messages - 1)
        if not self._checking:
            self._checking = True
            self._look_whole()

    @work(group="check")
    async def _look_whole(self) -> None:
        try:
            self._check = await self._source.check() or "it is gone"
        except (OSError, MessageBufferError) as error:
            self._check = reason(error)
        self.show_facts()

    async def fetch(self, start: int, stop: int) -> Mapping[int, Row]:
        rows = await self._source.rows(self._first + start, self._first + stop)
        return {sequence - self._first: row for sequence, row in rows.items()}

    async def find(self, pattern: Pattern, start: int, stop: int) -> int | None:
        found = await self._source.find(pattern, self._first + start, self._first + stop, self.progress)
        return None if found is None else found - self._first

    def facts(self, width: int) -> Sequence[Line]:
        return segment_lines(self._facts, self._check, self._place, width=width, glyphs=self.glyphs, gone=self._gone)

    def legend(self) -> Sequence[Line]:
        marks = [(word, f"{mark(word, self.glyphs, wide=False):>10}") for word in MARK_INKS]
        return (
            (),
            (("Marks", "note"),),
            *(((text, MARK_INKS[word]), ("  " + MEANINGS[word], "")) for word, text in marks),
        )

    def heading(self, width: int) -> Line:
        return heading(message_columns(width, self._last))

    def draw(self, number: int, item: Row | None, width: int) -> Line:
        sequence = self._first + number
        word = self._facts.mark(sequence) if self._facts is not None else "pending"
        return message_line(sequence, item, word, message_columns(width, self._last), self.glyphs)

    def shown(self, item: Row) -> Shown:
        if isinstance(item, Gap):
            span = f"message {item.first:,}" if item.first == item.last else f"messages {item.first:,} to {item.last:,}"
            return Shown(span, None, 0, (("unreadable", item.why),), readable=False)
        return Shown(f"message {item.sequence:,}", item.value, item.value_size, facts_of(item))

    @property
    def _last(self) -> int:
        return self._first if self._facts is None else max(self._first, self._facts.end - 1)

    @work(group="ask")
    async def action_jump(self) -> None:
        first, last = self._first, self._last
        question = f"Jump to which sequence? This segment has {first:,} to {last:,}."
        sequence = await self.app.push_screen_wait(Ask(question, lambda text: sequence_of(text, first, last)))
        if sequence is not None:
            self._go(sequence)

    def action_tail(self) -> None:
        self._go(self._last)
        self._follows = self._facts is not None and self._facts.state in ("filling", "draining", "next")
        self.say("at the tail; it is followed until the cursor is moved" if self._follows else "at the tail")

    def action_undelivered(self) -> None:
        facts = self._facts
        if facts is None:
            return
        if facts.undelivered is None:
            self.say("every message of this segment is delivered", "good")
        else:
            self._go(facts.undelivered)

    def on_rows_view_moved(self) -> None:
        if self.list.cursor != self.list.total - 1:
            self._follows = False
        super().on_rows_view_moved()

    def _go(self, sequence: int) -> None:
        self.list.jump(sequence - self._first)


def sequence_of(text: str, first: int, last: int) -> int:
    """The sequence that was typed; commas, blanks and underscores may group its digits.

    :raises ValueError: it is none, or not in the segment.
    """
    digits = text.strip().replace(",", "").replace("_", "").replace(" ", "")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("expected a number, such as 1,234")
    if len(digits) > 19 or not first <= int(digits) <= last:
        raise ValueError(f"this segment has {first:,} to {last:,}")
    return int(digits)
