"""The dead letters of a lane: which, since when, why, and what is in them; with ``--write``, replay and drop.

Promises
--------
- Nothing is replayed or dropped without ``--write`` and a typed confirmation.
- Letters that come or go meanwhile are followed; the cursor stays on its letter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import work

from mbframework.errors import MessageBufferError
from mbframework.files import Files
from mbframework.spans import Span, common, count
from mbtui.browse_screen import BACK, COPY, HELP, NEXT, PREVIOUS, QUIT, SEARCH, THEME, VIEW, BrowseScreen
from mbtui.dead_source import DeadRow, DeadSource, place_of, slice_of, turned
from mbtui.dialogs import Confirm
from mbtui.figures import size as size_text
from mbtui.glyphs import Glyphs
from mbtui.ink import Line, clean, fit
from mbtui.keys import Key
from mbtui.message_lines import WIDE, Column, header_facts, heading, moment, row_line
from mbtui.message_list import reason
from mbtui.pattern import Pattern
from mbtui.preview import one_line
from mbtui.preview_pane import Shown

_READ_ONLY = "read-only: start mbtui with --write to replay or drop"


class DeadScreen(BrowseScreen[DeadRow]):
    """The dead letters of lane ``lane`` in the buffer's directory ``directory``.

    :param write: whether they may be replayed and dropped; None: as the application says.
    """

    EMPTY = "no dead letters: every message was taken, or waits"
    DEFAULT_CSS = "DeadScreen #facts { height: 2; }"
    KEYS: ClassVar[tuple[Key, ...]] = (
        HELP,
        VIEW,
        Key("space", "space", "mark", "mark the letter under the cursor, or unmark it", "mark"),
        Key("a", "a", "mark_all", "mark all letters, or none", "all"),
        Key(
            "r",
            "r",
            "replay",
            "write the marked letters (else this one) again, as new messages",
            "replay",
            changes=True,
        ),
        Key("d", "d", "drop", "throw the marked letters (else this one) away", "drop", changes=True),
        SEARCH,
        NEXT,
        PREVIOUS,
        COPY,
        THEME,
        QUIT,
        BACK,
    )

    def __init__(self, directory: str, lane: str, *, write: bool | None = None, files: Files | None = None) -> None:
        super().__init__()
        self._source = DeadSource(directory, lane, files)
        self._directory, self._lane = directory, lane
        self._write = write
        self._ids: list[Span] | None = None
        self._marked: list[Span] = []
        self._busy = False

    def on_unmount(self) -> None:
        self._source.close()

    @property
    def write(self) -> bool:
        return super().write if self._write is None else self._write

    async def look(self) -> None:
        ids = await self._source.ids()
        if ids == self._ids:
            return
        before = self._id_at(self.list.cursor)
        lost = self._ids is not None and common(self._ids, ids) != self._ids
        self._ids, self._marked = ids, common(self._marked, ids)
        self.list.set_total(count(ids))
        if lost:
            self.list.reload()
            if before is not None:
                self.list.jump(place_of(ids, before))

    async def fetch(self, start: int, stop: int) -> Mapping[int, DeadRow]:
        return await self._source.rows(self._ids or [], start, stop)

    async def find(self, pattern: Pattern, start: int, stop: int) -> int | None:
        return await self._source.find(pattern, self._ids or [], start, stop, self.progress)

    def facts(self, width: int) -> Sequence[Line]:
        number, marked = count(self._ids or []), count(self._marked)
        place = f"{os.path.basename(self._directory.rstrip('/'))}/{self._lane}"
        known = f"{number:,} letter{'' if number == 1 else 's'}" if self._ids is not None else "looking"
        top = fit(
            width,
            ((f"{self.glyphs.states['dead']} DEAD LETTERS", "bad" if number else "good"),),
            ((clean(place), "note"),),
            ((known, "strong"),),
            ((f"{marked:,} marked", "warn"),) if marked else (),
            () if self.write else (("RO", "strong"),),
        )
        why: Line = (("refused by the provider for good; each stays until it is replayed or dropped", "dim"),)
        return [top, why]

    def heading(self, width: int) -> Line:
        return heading(_columns(width, self._last))

    def draw(self, number: int, item: DeadRow | None, width: int) -> Line:
        id_ = self._id_at(number)
        marked = id_ is not None and bool(common(self._marked, [(id_, id_ + 1)]))
        return letter_line(id_ or 0, item, marked, _columns(width, self._last), self.glyphs)

    def shown(self, item: DeadRow) -> Shown:
        letter = item.letter
        facts: list[tuple[str, str | bytes]] = [
            ("reason", letter.reason or "none is known"),
            ("topic", letter.topic),
            ("key", letter.key if letter.key is not None else "none"),
            ("died", moment(int(letter.at * 1e9), date=True)),
            ("was sequence", f"{letter.sequence:,}"),
        ]
        if letter.timestamp is not None:
            facts.append(("timestamp", moment(letter.timestamp, date=True)))
        if letter.partition is not None:
            facts.append(("partition", str(letter.partition)))
        facts.append(("value", size_text(item.value_size)))
        facts += header_facts(letter.headers)
        return Shown(f"letter {letter.id:,}", letter.value, item.value_size, tuple(facts))

    def action_mark(self) -> None:
        id_ = self._id_at(self.list.cursor)
        if id_ is not None:
            self._marked = turned(self._marked, id_)
            self.list.refresh()
            self.list.move_to(self.list.cursor + 1)
            self.show_facts()

    def action_mark_all(self) -> None:
        self._marked = [] if self._marked else list(self._ids or [])
        self.list.refresh()
        self.show_facts()

    def action_replay(self) -> None:
        self._change(
            "replay",
            "It is written again, as a new message behind all others.",
            "They are written again, as new messages behind all others.",
        )

    def action_drop(self) -> None:
        self._change(
            "drop", "It is gone then: nothing brings it back.", "They are gone then: nothing brings them back."
        )

    def _chosen(self) -> list[Span]:
        """The marked letters, else the one under the cursor; none where nothing may be changed, which is said."""
        if not self.write:
            self.say(_READ_ONLY, "warn")
            return []
        if self._busy:
            self.say("the last change is still under way", "warn")
            return []
        id_ = self._id_at(self.list.cursor)
        return self._marked or ([] if id_ is None else [(id_, id_ + 1)])

    @work(group="change")
    async def _change(self, verb: str, one: str, several: str) -> None:
        """Ask, have it done, and say what became of it."""
        chosen = self._chosen()
        if not chosen:
            return
        number = count(chosen)
        which = f"letter {chosen[0][0]:,}" if number == 1 else f"{number:,} letters"
        question = (
            f"{verb.capitalize()} {which} of lane {self._lane} of {self._directory}? {one if number == 1 else several}"
        )
        sure = await self.app.push_screen_wait(Confirm(question, verb if number == 1 else f"{verb} {number}"))
        if not sure:
            return
        self._busy = True

        def progress(done: float) -> None:
            if self._busy:
                self.say(f"{verb}: {100 * done:.0f}%", "note")

        progress(0)
        do, past = (self._source.drop, "dropped") if verb == "drop" else (self._source.replay, "replayed")
        try:
            outcome = await do(chosen, progress)
        except (OSError, MessageBufferError) as error:
            self._busy = False
            self.say(reason(error), "bad")
        else:
            self._busy = False
            rest = f"; not all: {outcome.why}" if outcome.why else ""
            self.say(f"{outcome.done:,} {past}{rest}", "bad" if rest else "good")
        self.look_soon()

    @property
    def _last(self) -> int:
        return self._ids[-1][1] - 1 if self._ids else 0

    def _id_at(self, row: int) -> int | None:
        found = slice_of(self._ids or [], row, row + 1)
        return found[0][0] if found else None


def _columns(width: int, last: int) -> list[Column]:
    """Those that fit, up to the letter ``last``."""
    wide = width >= WIDE
    digits = max(8, len(f"{last:,}"))
    fixed = [Column("", 1), Column("letter", digits, right=True), Column("died", 23 if wide else 12)]
    size = Column("size", 8, right=True)
    left = width - sum(column.width + 1 for column in [*fixed, size])
    if not wide:
        topic = left // 3
        return [*fixed, Column("reason", left - topic - 1), Column("topic", topic), size]
    topic, key = min(20, left // 5), min(20, left // 5)
    return [*fixed, Column("reason", left - topic - key - 2), Column("topic", topic), Column("key", key), size]


def letter_line(id_: int, row: DeadRow | None, marked: bool, columns: Sequence[Column], glyphs: Glyphs) -> Line:
    """One letter, or one that is on its way (None)."""
    sign: Line = (("*" if marked else " ", "warn"),)
    number: Line = ((f"{id_:,}", ""),)
    if row is None:
        return (*row_line(columns[:2], [sign, number]), (glyphs.ellipsis, "dim"))
    letter, room = row.letter, {column.title: column.width for column in columns}
    key = letter.key
    cells: dict[str, Line] = {
        "": sign,
        "letter": number,
        "died": ((moment(int(letter.at * 1e9), date="key" in room), ""),),
        "reason": one_line(letter.reason, room["reason"], ascii=glyphs.ascii),
        "topic": one_line(letter.topic, room["topic"], ascii=glyphs.ascii),
        "key": (("none", "dim"),) if key is None else one_line(key, room.get("key", 0), ascii=glyphs.ascii),
        "size": ((size_text(row.size), ""),),
    }
    return row_line(columns, [cells[column.title] for column in columns])
