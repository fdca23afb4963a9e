"""Text that cannot steer a terminal, and names that a shell takes. Pure."""

from __future__ import annotations

import os
import shlex


def printable(text: str) -> str:
    """``text`` with everything escaped that is not a printable character or a blank."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """The first ``most`` characters of ``text``, printable; where more were there, the last is "…"."""
    return printable(text if len(text) <= most else text[: most - 1] + "…")


def shell_word(path: str) -> str:
    """A file's name, printable, as one word of a command for a shell; bytes that are not text are in octal, which bash,
    ksh and zsh take."""
    if path.isprintable():
        return shlex.quote(path)
    return "$'" + "".join(c if c.isprintable() and c not in "'\\" else _octal(c) for c in path) + "'"


def _octal(character: str) -> str:
    # Three digits each, so that a digit behind them is not taken for one of theirs.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
