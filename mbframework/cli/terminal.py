"""What people read: narration on stderr, nothing in it that could steer a terminal.

``narrate`` may be called from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from mbframework.printable import printable

__all__ = ["library_narrates", "narrate", "plural", "printable"]


def narrate(text: str) -> None:
    """One line on stderr. Where nobody reads it any more, or it has no room, the work goes on without."""
    with suppress(OSError):
        click.echo(printable(text), err=True)


def plural(count: int, noun: str) -> str:
    """A number and its noun, such as "1 message" or "2,000 messages"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class _Narrator(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        narrate(record.getMessage())


@contextmanager
def library_narrates(level: int) -> Iterator[None]:
    """Inside, what the library logs from ``level`` on goes to stderr, without tracebacks."""
    logger = logging.getLogger("mbframework")
    narrator = _Narrator(level)
    before = logger.level
    logger.addHandler(narrator)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(narrator)
        logger.setLevel(before)
