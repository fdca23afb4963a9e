"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import click

from mbframework.units import format_size


@contextmanager
def progress_of(
    length: Callable[[], int | None], label: str, words: Callable[[int], str] = "{:,}".format
) -> Iterator[Callable[[int], object]]:
    """Inside, what is given tells how much more of ``length()`` is done; without a terminal it does nothing, and
    ``length`` is not called. A terminal that also shows the output is left to that. Where ``length()`` is None, nobody
    knows how much there is: the bar moves, with ``words`` of what is done behind it."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        yield bool
        return
    whole = length()
    if whole is not None:
        with click.progressbar(length=max(1, whole), label=label, file=sys.stderr, update_min_steps=1) as bar:
            yield bar.update
        return
    done = 0
    # Without an end: the bar is told how far it is, and takes nothing from what it is given.
    with click.progressbar(
        iter(int, 1), label=label, file=sys.stderr, item_show_func=lambda so_far: words(so_far or 0), show_pos=False
    ) as moving:

        def advance(more: int) -> None:
            nonlocal done
            done += more
            moving.update(more, done)

        yield advance


def progress_of_input(fd: int, label: str) -> AbstractContextManager[Callable[[int], object]]:
    """The same of the bytes that are read from a descriptor."""
    # Who types sees what is done, and a bar would run into it.
    return nullcontext(bool) if os.isatty(fd) else progress_of(lambda: length_of(fd), label, format_size)


def length_of(fd: int) -> int | None:
    """The bytes of a file; None of a pipe and of whatever else has no size."""
    info = os.fstat(fd)
    return info.st_size if stat.S_ISREG(info.st_mode) else None
