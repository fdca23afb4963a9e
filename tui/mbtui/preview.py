r"""What one message's value looks like: as JSON, as text, as bytes in hexadecimal.

Promises
--------
- Pure: no screen and no file; any thread.
- At most ``limit`` bytes of a value are looked at and at most :data:`MOST_LINES` lines made, however large it is and
  however deep its brackets nest; the note says what was left out.
- Nothing in the result can steer a terminal: every character that is not printable is a symbol (``␛``, ``<U+202E>``,
  ``\xff`` for a byte that is not UTF-8), in an ink of its own, so that it is not mistaken for the same text.
- JSON is laid out, never interpreted: numbers and strings stand as they were sent.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from rich.cells import get_character_cell_size

from mbframework.units import format_size
from mbtui.ink import Ink, Line

#: The views, in the order in which they follow each other.
VIEWS: Final = ("json", "text", "hex")
#: Bytes of a value that are looked at.
LIMIT: Final = 64 << 10
MOST_LINES: Final = 1_000
#: Cells below which no view is made: two bytes in hexadecimal.
NARROWEST: Final = 20
#: Columns beyond which nothing is indented, so that deep nesting stays on the screen.
_DEEPEST = 24

#: What a token of JSON is drawn in; a name in front of a colon is a "key".
_INKS: Mapping[str, Ink] = {"key": "note", "string": "", "number": "good", "word": "warn", "mark": "dim"}
_SYMBOL: Ink = "bad"

_Pieces = list[tuple[str, Ink]]

_BLANK = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(
    r"""(?P<mark>[{}\[\],:])
      | (?P<string>"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*")
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![\w.])
      | (?P<word>(?:true|false|null|NaN|-?Infinity)\b)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Preview:
    """``lines`` fit the width asked for. ``view`` is the view that was made: text where a value is not JSON.
    ``note`` says why, and what was left out; "" where there is nothing to say."""

    view: str
    lines: list[Line]
    note: str


def preview(value: bytes | None, view: str, *, width: int, size: int = -1, ascii: bool = False) -> Preview:
    """``value`` in one of the :data:`VIEWS`, in lines of at most ``width`` cells (:data:`NARROWEST` at least).

    :param size: bytes of the whole value where ``value`` is only its beginning.
    :param ascii: nothing outside ASCII is in the result.
    """
    if value is None:
        return Preview(view, [(("none: a tombstone", "dim"),)], "")
    if not value:
        return Preview(view, [(("empty: 0 bytes", "dim"),)], "")
    size = max(size, len(value))
    data = value[:LIMIT]
    cut = len(data) < size
    width = max(width, NARROWEST)
    notes = []
    if view == "hex":
        lines = _first_lines(hex_lines(data, width))
    else:
        text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(data, final=not cut)
        lines = []
        if view == "json":
            try:
                lines = _first_lines(_wrapped(json_lines(text, cut=cut), width, ascii=ascii))
            except ValueError as error:
                view = "text"
                notes.append(f"not JSON ({error})")
        if view == "text":
            lines = _first_lines(_wrapped((((line, ""),) for line in text.split("\n")), width, ascii=ascii))
    if len(lines) > MOST_LINES:
        del lines[MOST_LINES:]
        notes.append(f"the first {MOST_LINES:,} lines")
    if cut:
        notes.append(f"the first {format_size(len(data))} of {format_size(size)}")
    return Preview(view, lines, "; ".join(notes))


def _first_lines(lines: Iterator[Line]) -> list[Line]:
    """One more than is shown, which tells that there are more."""
    return [line for line, _ in zip(lines, range(MOST_LINES + 1), strict=False)]


def one_line(data: str | bytes, width: int, *, ascii: bool = False) -> Line:
    """The beginning of a topic, a key or a text in one line of at most ``width`` cells; ``…`` where it goes on."""
    return several_lines(data, width, 1, ascii=ascii)[0]


def several_lines(data: str | bytes, width: int, most: int, *, ascii: bool = False) -> list[Line]:
    """The beginning of a text in at most so many lines; the last ends with ``…`` where it goes on."""
    if width < 1:
        return [()]
    enough = (most * width + 1) * (4 if isinstance(data, bytes) else 1)
    text = data[:enough].decode(errors="surrogateescape") if isinstance(data, bytes) else data[:enough]
    lines = [line for line, _ in zip(_wrapped([((text, ""),)], width, ascii=ascii), range(most + 1), strict=False)]
    if len(lines) > most:
        lines = [*lines[: most - 1], (*_cropped(lines[most - 1], width - 1), ("~" if ascii else "…", "dim"))]
    return lines


def hex_lines(data: bytes, width: int) -> Iterator[Line]:
    """Offset, bytes and printable ASCII characters; as many bytes a line as fit, 16 at most."""
    count = next((n for n in (16, 8, 4) if 8 + 2 + 3 * n + 1 + n <= width), 2)
    for offset in range(0, len(data), count):
        part = data[offset : offset + count]
        digits = part.hex(" ").ljust(3 * count)
        line: _Pieces = [(f"{offset:08x}  ", "dim"), (digits, ""), (" ", "")]
        for byte in part:
            printable = 32 <= byte < 127
            _add(line, chr(byte) if printable else ".", "note" if printable else "dim")
        yield tuple(line)


def json_lines(text: str, *, cut: bool = False) -> Iterator[Line]:
    """``text`` laid out one member a line; works without recursion.

    :param cut: the text is only the beginning of one: it may end anywhere.
    :raises ValueError: it is not JSON; the text says where, in characters.
    """
    line: _Pieces = []
    stack: list[str] = []
    # What may come next: "value", "first" (a value or the end), "key", "first key", "colon", "more" or "end".
    state = "value"
    at = _blank(text, 0)
    if at == len(text):
        raise ValueError("nothing but blanks")
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if not cut or _BROKEN.match(text, at) is None:
                raise ValueError(f"character {at:,}")
            line.append((text[at:], "dim"))
            break
        kind, part = match.lastgroup or "", match[0]
        at = _blank(text, match.end())
        after = _following(state, kind, part, stack)
        if after is None:
            raise ValueError(f"character {match.start():,}")
        empty = state in ("first", "first key")
        if (part in ("}", "]") and not empty) or (part not in ("}", "]") and empty):
            yield tuple(line)
            line = [_indent(len(stack) - (part in ("{", "[")))]
        is_key = kind == "string" and after == "colon"
        line.append((": " if part == ":" else part, _INKS["key" if is_key else kind]))
        state = after
        if part == ",":
            yield tuple(line)
            line = [_indent(len(stack))]
    else:
        if state != "end" and not cut:
            raise ValueError("it ends too early")
    yield tuple(line)


#: Printable ASCII in a row, or one character of any kind.
_RUN = re.compile(r"[ -~]{2,}|.", re.DOTALL)

#: What a token that was cut may look like.
_BROKEN = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*\\?\Z|-?[0-9.eE+-]*\Z|[a-zN-]{1,8}\Z|-?I[a-z]{0,7}\Z')


def _following(state: str, kind: str, part: str, stack: list[str]) -> str | None:
    """The state behind ``part``; None where it may not stand there. Keeps the stack of open brackets."""
    if part in ("{", "["):
        if state not in ("value", "first"):
            return None
        stack.append(part)
        return "first key" if part == "{" else "first"
    if part in ("}", "]"):
        allowed = ("more", "first key") if part == "}" else ("more", "first")
        if not stack or stack[-1] != ("{" if part == "}" else "[") or state not in allowed:
            return None
        stack.pop()
        return "more" if stack else "end"
    if part == ",":
        return ("key" if stack[-1] == "{" else "value") if state == "more" else None
    if part == ":":
        return "value" if state == "colon" else None
    if state in ("key", "first key"):
        return "colon" if kind == "string" else None
    if state in ("value", "first"):
        return "more" if stack else "end"
    return None


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()


def _indent(depth: int) -> tuple[str, Ink]:
    return " " * min(2 * depth, _DEEPEST), ""


def _wrapped(lines: Iterable[Line], width: int, *, ascii: bool) -> Iterator[Line]:
    """The lines cut to ``width`` cells, what is not printable as symbols."""
    for line in lines:
        part: _Pieces = []
        room = width
        for text, ink in line:
            for run in _RUN.findall(text):
                plain = len(run) > 1
                while run:
                    shown, cells, safe = (run[:room], len(run[:room]), True) if plain else _shown(run, ascii)
                    if cells > width:
                        # A long symbol on a screen that is narrower.
                        shown, cells = shown[:width] if len(shown) > 1 else "", width
                    if cells > room or (plain and not room):
                        yield tuple(part)
                        part, room = [], width
                        continue
                    _add(part, shown, ink if safe else _SYMBOL)
                    room -= cells
                    run = run[len(shown) :] if plain else ""
        yield tuple(part)


def _cropped(line: Line, width: int) -> Line:
    result: _Pieces = []
    for text, ink in line:
        for character in text:
            width -= get_character_cell_size(character)
            if width < 0:
                return tuple(result)
            _add(result, character, ink)
    return tuple(result)


def _add(line: _Pieces, text: str, ink: Ink) -> None:
    """``text`` behind the line, in its last piece where the ink is the same."""
    if line and line[-1][1] == ink:
        line[-1] = (line[-1][0] + text, ink)
    else:
        line.append((text, ink))


@lru_cache(4096)
def _shown(character: str, ascii: bool) -> tuple[str, int, bool]:
    """How a character is shown, in how many cells, and whether as itself."""
    code = ord(character)
    if character.isprintable() and not (ascii and code > 126) and not _selects(code):
        return character, get_character_cell_size(character), True
    if 0xDC80 <= code <= 0xDCFF:
        text = f"\\x{code - 0xDC00:02x}"
    elif ascii:
        text = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
    elif code < 32:
        text = chr(0x2400 + code)
    elif code == 127:
        text = "\u2421"
    else:
        text = f"<U+{code:04X}>"
    return text, len(text), False


def _selects(code: int) -> bool:
    """Whether it only changes how the character before it looks, and how wide that is."""
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF
