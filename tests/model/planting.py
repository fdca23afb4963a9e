"""A bug in the engine, for as long as a test wants it: a few words of a function read otherwise."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def planted(owner: Any, name: str, *changes: tuple[str, str]) -> Iterator[None]:
    """Inside, the function ``name`` of a class or module reads otherwise: of each pair the second for the first.

    Each must stand there exactly once, so that a function that has changed is noticed.
    """
    original = inspect.getattr_static(owner, name)
    plain: Callable[..., Any] = original.fget if isinstance(original, property) else original
    plain = getattr(plain, "__func__", plain)
    source = textwrap.dedent(inspect.getsource(plain))
    for before, after in changes:
        assert source.count(before) == 1, f"{before!r} stands {source.count(before)} times in {name}"
        source = source.replace(before, after)
    module = sys.modules[plain.__module__]
    found: dict[str, Any] = {}
    # The decorator stands in the source.
    text = "from __future__ import annotations\n" + source
    exec(compile(text, f"<{name} with a bug>", "exec"), vars(module), found)
    setattr(owner, name, found[name])
    try:
        yield
    finally:
        setattr(owner, name, original)
