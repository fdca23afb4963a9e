"""Which path is in use: the extension in C (``native/``), or plain Python, which is the reference and always works.

Promises
--------
- Both write the same bytes, give the same answers and raise the same errors. What is not plain (headers, a full
  segment, a message of a strange type) the extension leaves to the code in Python, before anything has changed.
- The environment variable ``MBFRAMEWORK_EXTENSION`` chooses when the package is imported: ``auto`` (default) takes the
  extension where there is a fitting one, ``off`` does not, ``require`` raises ImportError where there is none; so does
  any other word.
- :data:`why_plain` says why the path is the plain one; "" where it is not.
- What a provider has in C is a module of its own, which it takes with :func:`load`: all of this holds for it as well.

The classes below have no content of their own here: with the extension they hold, in C, the attributes that they name,
and those who inherit from them need not know.
"""

from __future__ import annotations

import importlib
import os
import threading
import zlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from mbframework.errors import ConfigurationError

if TYPE_CHECKING:
    from mbframework import _speedups

VARIABLE: Final = "MBFRAMEWORK_EXTENSION"
#: What the extension must say of itself: a file that was built from other sources may have been left behind.
BUILD: Final = 2


class ExtensionUnusable(ConfigurationError, ImportError):
    """``MBFRAMEWORK_EXTENSION`` asks for what is not there. Raised where the package is imported."""


def load(name: str, build: int) -> tuple[ModuleType | None, str]:
    """The module ``name`` of the extension, or None and why.

    :param build: the ``BUILD`` that it must have.
    :raises ExtensionUnusable: ``MBFRAMEWORK_EXTENSION`` requires it, or asks for something unknown.
    """
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted not in ("", "auto", "off", "require"):
        raise ExtensionUnusable(f"{VARIABLE}={wanted!r}; expected auto, off or require")
    if wanted == "off":
        return None, f"{VARIABLE}=off"
    why = ""
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        why = f"there is no extension that this interpreter can load ({error})"
    else:
        if build == found.BUILD:
            return found, ""
        why = f"the extension {name} is build {found.BUILD}, and this release needs build {build}"
    if wanted == "require":
        raise ExtensionUnusable(f"{VARIABLE}=require, but {why}: install mbframework again, with a C compiler at hand")
    return None, why


_found, why_plain = load("mbframework._speedups", BUILD)

#: The extension, or None.
compiled: Final[_speedups | None] = _found  # type: ignore[valid-type]

if TYPE_CHECKING or _found is None:

    class Tip:
        """The growing end of a spool: what :class:`mbframework.spool.writer.SpoolWriter` moves with each append."""

        _tail: int
        _limit: int
        _roll_at: int
        #: The salt to encode the next frame with; it changes with the segment.
        salt: int
        #: One past the last spooled sequence.
        end: int
        #: Messages ever spooled.
        ordinal: int
        #: True from before a frame is stored until the tail is past it.
        busy: bool
        #: Offset of the last frame stored, for the live page.
        last: int
        #: Frames of the active segment, and when the last of them was accepted.
        frames: int
        last_accepted: int

        def attach(self, pages: object, words: object, store: object) -> None:
            """From now on the extension may store into these pages of the active segment, and into the words of the
            live page."""

        def detach(self) -> None:
            """It may not any more: they are about to be unmapped, or somebody else's."""

    class Gate:
        """What decides whether :class:`mbframework.lane.Lane` takes a message at once."""

        _next: int
        _granted: int
        #: True where a write must look at more than whether the lane is live.
        _special: bool
        live: bool
        #: The sender waits to be woken.
        sleeping: bool
        #: Bytes of topics, values, keys and headers accepted since opening.
        accepted_bytes: int
        #: Bytes of topic, key, value and headers; the provider may lower it.
        max_message: int

        def arm(self, *what: Any) -> None:
            """The extension may append for this lane."""

    class Pen:
        """What appends for a lane, on behalf of :class:`mbframework.MessageBuffer`."""

        def _bind(self, lane: object, topics: dict[str, bytes]) -> None:
            """Append for this lane from now on, for none where it is None."""

    def install(cls: type[Pen]) -> None:
        """Put the extension's ``write`` and ``write_many`` in front of those of the class."""

    crc32 = zlib.crc32
    #: The lock of a lane: a reentrant one.
    Lock = threading.RLock
else:
    Tip, Gate, Pen, Lock = _found.Tip, _found.Gate, _found.Pen, _found.Lock
    install, crc32 = _found.install, _found.crc32
