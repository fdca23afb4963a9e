"""Lines of coloured text, as plain values: what the panels compute and the widgets draw.

Promises
--------
- A :data:`Line` is a tuple of (text, ink) pieces. The text is text: it is never parsed as markup.
- Widths are terminal cells, so that a wide character counts two.
- Every text that came from elsewhere goes through :func:`clean`, which leaves nothing that could steer a terminal.
"""

from __future__ import annotations

from typing import Literal

from rich.cells import cell_len, set_cell_size

from mbframework.printable import printable as clean

Ink = Literal["", "dim", "strong", "good", "warn", "bad", "note"]
Piece = tuple[str, Ink]
Line = tuple[Piece, ...]

INKS: tuple[Ink, ...] = ("dim", "strong", "good", "warn", "bad", "note")
NOTHING: Line = ()

__all__ = ["INKS", "NOTHING", "Ink", "Line", "Piece", "clean", "crop", "fit", "length", "opposite", "plain", "wrap"]


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(text for text, _ in line)


def length(line: Line) -> int:
    """Cells that the line takes."""
    return sum(cell_len(text) for text, _ in line)


def crop(line: Line, width: int, ellipsis: str = "…") -> Line:
    """The line in at most ``width`` cells; one that is cut ends with ``ellipsis``."""
    if length(line) <= width:
        return line
    room = width - cell_len(ellipsis)
    if room < 0:
        return ()
    kept: list[Piece] = []
    for text, ink in line:
        size = cell_len(text)
        if size > room:
            kept.append((set_cell_size(text, room) + ellipsis, ink))
            return tuple(kept)
        kept.append((text, ink))
        room -= size
    return tuple(kept)


def fit(width: int, *parts: Line, gap: str = "  ") -> Line:
    """As many of the parts as there is room for, the first ones first; what does not fit is left out, not cut.

    The first part is always there.
    """
    found = parts[0] if parts else ()
    for part in parts[1:]:
        if part and length(found) + len(gap) + length(part) <= width:
            found = (*found, (gap, ""), *part) if found else part
    return found


def opposite(left: Line, right: Line, width: int, ellipsis: str = "…") -> Line:
    """One line to the left and one to the right; where both do not fit, the left one is cut."""
    if not right:
        return left
    left = crop(left, max(0, width - length(right) - 1), ellipsis)
    return (*left, (" " * max(1, width - length(left) - length(right)), ""), *right)


def wrap(text: str, width: int, lines: int, ink: Ink = "", ellipsis: str = "…") -> list[Line]:
    """A text in at most ``lines`` lines, broken between words where that is possible."""
    found: list[Line] = []
    rest = text.strip()
    while rest and len(found) < lines and width > 0:
        if cell_len(rest) <= width:
            return [*found, ((rest, ink),)]
        if len(found) == lines - 1:
            return [*found, crop(((rest, ink),), width, ellipsis)]
        head = set_cell_size(rest, width).rstrip()
        cut = head.rfind(" ") if rest[len(head) : len(head) + 1] not in ("", " ") else len(head)
        head = head[: cut if cut > width // 2 else len(head)]
        found.append(((head, ink),))
        rest = rest[len(head) :].strip()
    return found
