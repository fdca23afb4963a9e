"""Text that cannot steer a terminal. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with everything escaped that is not a printable character or a blank."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """The first ``most`` characters of ``text``, printable; where more were there, the last is "…"."""
    return printable(text if len(text) <= most else text[: most - 1] + "…")
