"""All lanes of all directories, to choose from: state, backlog and loss of each in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from mbframework.monitor import LaneView, View
from mbtui.figures import age, count
from mbtui.glyphs import Glyphs
from mbtui.ink import Line, clean, crop
from mbtui.lane_words import address, letters, loss, nobody_sends, place, state, verdict
from mbtui.rows_view import RowsView

Place = tuple[View, LaneView | None]


#: Below this the age of the oldest message is left out, so that there is room for the verdict.
_ROOMY = 100
_LONGEST_NAME = 24


def lane_line(view: View, lane: LaneView | None, glyphs: Glyphs, *, width: int, name: int = _LONGEST_NAME) -> Line:
    """One lane, or a directory that shows none; in ``width`` cells, ``name`` of them for what it is called."""
    called: Line = ((f" {set_cell_size(place(view, lane), name)} ", ""),)
    if lane is None:
        told = view.error or "no lane yet"
        return crop((*called, (clean(told), "bad" if view.error else "dim")), width, glyphs.ellipsis)
    ((word, ink),) = state(lane, glyphs)
    known = lane.status
    oldest = f"oldest {age(known.oldest_age_s)}" if known.oldest_age_s is not None else ""
    roomy = width >= _ROOMY
    line: Line = (
        *called,
        (f"{word:<13}", ink),
        (f"{count(known.resident):>7} {'waiting' if roomy else 'wait'}  ", "strong" if known.resident else "dim"),
        *(((f"{oldest:<15} ", ""),) if roomy else ()),
        (f"{loss(lane)[0][0]:<14}", loss(lane)[0][1]),
        *(((f"{count(letters(lane))} dead  ", "warn"),) if letters(lane) else ()),
        *((("nobody sends  ", "bad"),) if nobody_sends(lane) else ()),
        *((("paused  ", "warn"),) if known.paused and known.state != "paused" else ()),
        *verdict(lane),
    )
    return crop(line, width, glyphs.ellipsis)


class _Lanes(RowsView):
    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._glyphs = glyphs
        self.places: Sequence[Place] = ()

    def row(self, at: int) -> Line:
        longest = max(cell_len(place(*each)) for each in self.places)
        width = self.scrollable_content_region.width
        return lane_line(*self.places[at], self._glyphs, width=width, name=min(_LONGEST_NAME, longest))


class LaneScreen(ModalScreen[tuple[str, str] | None]):
    """Gives the place that was chosen, as directory and lane, None where the person left. It shows the places as they
    were when it was opened: others may have come since, and these have gone."""

    DEFAULT_CSS = """
    LaneScreen {
        align: center middle;
        & > Vertical {
            width: 116; max-width: 100%; height: auto; max-height: 100%;
            border: round $primary; background: $surface; padding: 0 1;
        }
        & RowsView { height: auto; max-height: 100%; min-height: 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,l", "leave", "Close", show=False)]

    def __init__(self, places: Sequence[Place], chosen: int, glyphs: Glyphs) -> None:
        super().__init__()
        self._places, self._chosen, self._glyphs = places, chosen, glyphs

    def compose(self) -> ComposeResult:
        with Vertical():
            yield _Lanes(self._glyphs)

    def on_mount(self) -> None:
        self.query_one(Vertical).border_title = "Lanes"
        lanes = self.query_one(_Lanes)
        lanes.places = self._places
        lanes.styles.height = len(self._places)
        lanes.set_total(len(self._places))
        lanes.move_to(self._chosen)
        lanes.focus()

    def on_rows_view_opened(self, event: RowsView.Opened) -> None:
        self.dismiss(address(self._places[event.row]))

    def action_leave(self) -> None:
        self.dismiss(None)
