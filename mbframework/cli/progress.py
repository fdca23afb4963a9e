"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress_of(length: Callable[[], int], label: str) -> Iterator[Callable[[int], object]]:
    """Inside, what is given tells how much more of ``length()`` is done; without a terminal it does nothing, and
    ``length`` is not called. A terminal that also shows the output is left to that."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        yield bool
        return
    with click.progressbar(length=max(1, length()), label=label, file=sys.stderr, update_min_steps=1) as bar:
        yield bar.update
