"""The signs on the screen, in Unicode and in ASCII.

A state is always a sign and a word, so that it reads without colours too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mbtui.ink import Ink

#: The colour of each state.
STATE_INKS: Mapping[str, Ink] = {
    "live": "good",
    "buffering": "warn",
    "draining": "note",
    "paused": "warn",
    "blocked": "bad",
    "disk-error": "bad",
    "stale": "bad",
    "dead": "bad",
}
SEGMENT_INKS: Mapping[str, Ink] = {
    "drained": "dim",
    "draining": "note",
    "next": "note",
    "sealed": "",
    "filling": "good",
    "damaged": "bad",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs. ``levels``: of a sparkline, lowest first; ``full`` and ``empty``: of a bar."""

    states: Mapping[str, str]
    segments: Mapping[str, str]
    levels: str
    full: str
    empty: str
    ellipsis: str
    unknown: str
    times: str
    dot: str
    arrow: str
    down: str
    up: str
    border: str
    ascii: bool = False

    def state(self, state: str) -> str:
        """The sign and the word: "● LIVE"."""
        return f"{self.states.get(state, '?')} {state.upper()}"

    def bar(self, done: float, width: int) -> tuple[str, str]:
        """The two parts of a bar, ``done`` from 0 to 1; full only when all is done, and not empty once something is."""
        filled = min(width, max(int(done * width), 1 if done > 0 else 0))
        return self.full * filled, self.empty * (width - filled)

    def sparkline(self, values: Sequence[float | None]) -> str:
        """A column for each value, up to the highest of them; what is not known stays blank."""
        top = max((value for value in values if value is not None), default=0.0)
        last = len(self.levels) - 1
        return "".join(
            " " if value is None else self.levels[0 if value <= 0 else max(1, round(last * value / top))]
            for value in values
        )


UNICODE = Glyphs(
    states={
        "live": "●",
        "buffering": "■",
        "draining": "▲",
        "paused": "‖",
        "blocked": "✖",
        "disk-error": "!",
        "stale": "?",
        "dead": "†",
    },
    segments={"drained": "✓", "draining": "▲", "next": "△", "sealed": "■", "filling": "●", "damaged": "✖"},
    levels="▁▂▃▄▅▆▇█",
    full="█",
    empty="─",
    ellipsis="…",
    unknown="–",
    times="×",
    dot=" · ",
    arrow="→",
    down="▼",
    up="▲",
    border="round",
)
ASCII = Glyphs(
    states={
        "live": "*",
        "buffering": "#",
        "draining": "^",
        "paused": "=",
        "blocked": "X",
        "disk-error": "!",
        "stale": "?",
        "dead": "+",
    },
    segments={"drained": "v", "draining": "^", "next": ">", "sealed": "#", "filling": "*", "damaged": "X"},
    levels="_.-:=+*#",
    full="#",
    empty=".",
    ellipsis="~",
    unknown="-",
    times="x",
    dot=" - ",
    arrow="->",
    down="v",
    up="^",
    border="ascii",
    ascii=True,
)


_IN_ASCII = str.maketrans({"→": "->", "…": "...", "×": "x", "–": "-", "—": "-", "·": "-", "’": "'", "“": '"', "”": '"'})


def only_ascii(text: str) -> str:
    """``text`` with typography written out, and everything else that is not ASCII escaped."""
    return text if text.isascii() else text.translate(_IN_ASCII).encode("ascii", "backslashreplace").decode("ascii")
