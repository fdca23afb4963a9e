"""The keys of the main screen: one table for the bindings, the bar at the bottom and the help."""

from __future__ import annotations

from dataclasses import dataclass

from mbtui.ink import Line, crop, length


@dataclass(frozen=True, slots=True)
class Key:
    """``keys``: as bindings know them; ``shown``: as people do; ``bar``: a word for the bar, "" for none."""

    keys: str
    shown: str
    action: str
    help: str
    bar: str = ""
    changes: bool = False


MOVES: tuple[tuple[str, str], ...] = (
    ("↑ ↓ j k", "move the cursor"),
    ("PgUp PgDn", "a page up or down"),
    ("g G", "first, last"),
    ("tab", "from the segments to the events and back"),
)
KEYS: tuple[Key, ...] = (
    Key("question_mark", "?", "help", "this help", "help"),
    Key("enter", "enter", "open", "open the segment under the cursor", "open"),
    Key("D", "D", "dead_letters", "dead letters of this lane", "dead letters"),
    Key("right_square_bracket", "]", "lane(1)", "next lane", "lane"),
    Key("left_square_bracket", "[", "lane(-1)", "lane before"),
    Key("l", "l", "lanes", "list of all lanes", "lanes"),
    Key("slash", "/", "filter", "filter by a regular expression; ! in front hides what it finds", "filter"),
    Key("n", "n", "find(1)", "next match"),
    Key("N", "N", "find(-1)", "match before"),
    Key("s", "s", "sort", "sort by the next column", "sort"),
    Key("r", "r", "reverse", "the other way round"),
    Key("m", "m", "maximise", "maximise the list with the cursor, and back"),
    Key("E", "E", "events", "the event log at full height, and back", "events"),
    Key("space", "space", "freeze", "hold the picture, and let it go on", "freeze"),
    Key("w", "w", "window", "time that the sparklines cover: 1m, 5m, 1h", "window"),
    Key("t", "t", "app.theme", "next theme; ctrl+p has all", "theme"),
    Key("c", "c", "copy", "copy the row under the cursor"),
    Key("f8", "f8", "app.picture", "save a picture of the screen (SVG) here; in the browser: download it"),
    Key("escape", "esc", "back", "stop a search, clear the filter, leave a maximised list"),
    Key("p", "p", "pause", "pause or resume sending", "pause", changes=True),
    Key("R", "R", "retry", "ask the provider now", "retry", changes=True),
    Key("M", "M", "mode", "change the mode", "mode", changes=True),
    Key("X", "X", "purge", "throw away everything that waits", "purge", changes=True),
    Key("ctrl+p", "ctrl+p", "command_palette", "all commands"),
    Key("q", "q", "app.quit", "quit", "quit"),
)


def bar(width: int, *, write: bool) -> Line:
    """The keys at the bottom, as many as there is room for; the way out is always among them."""
    offered = [key for key in KEYS if key.bar and (write or not key.changes)]
    # What changes a buffer was asked for with --write: it comes first.
    offered.sort(key=lambda key: (key.action != "help", not key.changes))
    pieces = [_offer(key) for key in offered if key.action != "app.quit"]
    way_out = next(_offer(key) for key in offered if key.action == "app.quit")
    room = width - length(way_out)
    shown: Line = ()
    for piece in pieces:
        if length(shown) + length(piece) > room:
            break
        shown = (*shown, *piece)
    return crop((*shown, *way_out), width, "")


def _offer(key: Key) -> Line:
    return ((f" {key.shown}", "strong"), (f" {key.bar} ", "dim"))


def help_lines(*, write: bool, ascii_only: bool) -> list[Line]:
    """All keys, one a line."""
    moves = [(("up down j k" if ascii_only and "↑" in shown else shown), text) for shown, text in MOVES]
    rows = moves + [(key.shown, key.help) for key in KEYS if not key.changes]
    lines: list[Line] = [((f"{shown:>10}", "strong"), ("  " + text, "")) for shown, text in rows]
    told = "" if write else " (start with --write)"
    lines.append(())
    lines.append((("Changing the buffer" + told, "note" if write else "dim"),))
    ink = "strong" if write else "dim"
    for key in KEYS:
        if key.changes:
            lines.append(((f"{key.shown:>10}", ink), ("  " + key.help, "" if write else "dim")))  # type: ignore[arg-type]
    return lines
