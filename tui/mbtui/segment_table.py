"""The table of segment files: state, size, seek and progress of each.

The rows come from a reading thread, some more than are in sight; a row that has not come yet is a row of dots.
"""

from __future__ import annotations

from dataclasses import dataclass

from mbframework.monitor import SegmentRow
from mbtui.figures import age, count, moment, size
from mbtui.glyphs import SEGMENT_INKS, Glyphs
from mbtui.ink import Ink, Line, clean
from mbtui.rows_view import RowsView


@dataclass(frozen=True, slots=True)
class Column:
    """A column: cells wide, and how much it matters (0: it is always there)."""

    name: str
    width: int
    rank: int
    left: bool = False


_COLUMNS = (
    Column("segment", 15, 0),
    Column("state", 10, 0, left=True),
    Column("size", 9, 2),
    Column("msgs", 7, 3),
    Column("seek", 9, 5),
    Column("done", 14, 1),
    Column("left", 7, 1),
    Column("oldest", 14, 6),
    Column("age", 8, 4),
)
_WIDEST_BAR = 40


def columns_for(width: int) -> tuple[Column, ...]:
    """The columns for which there is room; the bar takes what is left over."""
    chosen = list(_COLUMNS)
    while len(chosen) > 2 and _taken(chosen) > width:
        chosen.remove(max(chosen, key=lambda column: column.rank))
    spare = min(_WIDEST_BAR, max(0, width - _taken(chosen)))
    return tuple(Column(c.name, c.width + spare, c.rank) if c.name == "done" else c for c in chosen)


def _taken(columns: list[Column]) -> int:
    return 2 + sum(column.width + 1 for column in columns)


def heading(columns: tuple[Column, ...], sort: str, descending: bool, glyphs: Glyphs) -> Line:
    """The names of the columns, the one that is sorted by marked."""
    sign = glyphs.down if descending else glyphs.up
    texts = []
    for column in columns:
        text = column.name + (sign if column.name == sort else "")
        centred = column.left or column.name == "done"
        texts.append(text.ljust(column.width) if centred else text.rjust(column.width))
    return ((" " + " ".join(texts), ""),)


def row_line(row: SegmentRow, columns: tuple[Column, ...], now: float, glyphs: Glyphs) -> Line:
    """A segment."""
    ink = SEGMENT_INKS.get(row.state, "")
    quiet: Ink = "dim" if row.state == "drained" else ""
    pieces: list[tuple[str, Ink]] = [(" ", "")]
    for column in columns:
        match column.name:
            case "segment":
                text, this = f"{row.first:,}", quiet
            case "state":
                text, this = f"{glyphs.segments.get(row.state, '?')} {clean(row.state)}", ink
            case "size":
                text, this = size(row.size), quiet
            case "msgs":
                text, this = glyphs.unknown if row.messages is None else count(row.messages), quiet
            case "seek":
                text, this = size(row.seek), quiet
            case "done":
                full, empty = glyphs.bar(row.done, column.width - 7)
                pieces += [(full, ink), (empty, "dim")]
                text, this = (
                    f" {_percent(row.done):>6}".rjust(column.width - len(full + empty)),
                    ink if row.done else "dim",
                )
                pieces += [(text, this), (" ", "")]
                continue
            case "left":
                text, this = glyphs.unknown if row.left is None else count(row.left), "strong" if row.left else quiet
            case "oldest":
                text, this = glyphs.unknown if row.oldest is None else moment(row.oldest, now), quiet
            case _:
                text, this = glyphs.unknown if row.age_s is None else age(row.age_s), quiet
        pieces.append((text.ljust(column.width) if column.left else text.rjust(column.width), this))
        pieces.append((" ", ""))
    return tuple(pieces[:-1])


def _percent(done: float) -> str:
    """100 % only of what is complete."""
    return "100.0%" if done >= 1 else f"{min(99.9, 100 * done):.1f}%"


class SegmentTable(RowsView):
    """Draws the rows that :meth:`show` was given."""

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
        self._now = 0.0
        self._rows: dict[int, SegmentRow] = {}
        self._drawn: dict[int, Line] = {}
        self.columns = columns_for(80)
        self.sort = "segment"
        self.descending = False

    def show(self, total: int, start: int, rows: list[SegmentRow], now: float) -> None:
        """There are ``total`` rows now, and these are those from ``start`` on."""
        self._now = now
        self._rows = {start + at: row for at, row in enumerate(rows)}
        before = self.total
        self.set_total(total)
        if before != total:
            self.refresh()
        for at in self.window:
            if self._drawn.get(at) != self._line(at):
                self.refresh_row(at)

    def forget(self) -> None:
        """The rows are of another lane, or in another order: what was there is no longer so."""
        self._rows = {}
        self.refresh()

    @property
    def chosen(self) -> SegmentRow | None:
        """The row with the cursor, if it has come."""
        return self._rows.get(self.cursor)

    def head(self) -> Line:
        return heading(self.columns, self.sort, self.descending, self._glyphs)

    def row(self, at: int) -> Line:
        line = self._drawn[at] = self._line(at)
        return line

    def _line(self, at: int) -> Line:
        row = self._rows.get(at)
        if row is None:
            return ((" " + "." * 3, "dim"),)
        return row_line(row, self.columns, self._now, self._glyphs)

    def on_resize(self) -> None:
        # Textual calls the handler of the base class as well.
        self.columns = columns_for(self.size.width)
        self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        self._drawn = {}
        super().watch_scroll_y(old_value, new_value)
