"""Which path is in use: the provider's part of the extension in C (``native/kafka.c``), or plain Python, which is the
reference and always works. ``MBFRAMEWORK_EXTENSION`` chooses; see :mod:`mbframework.speedups`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mbframework.speedups import load

if TYPE_CHECKING:
    from mbframework_kafka import _speedups

#: What the extension must say of itself.
BUILD: Final = 1

_found, why_plain = load("mbframework_kafka._speedups", BUILD)

#: The extension, or None.
compiled: Final[_speedups | None] = _found  # type: ignore[valid-type]
