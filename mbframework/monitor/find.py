"""Which buffers are there on this machine?

Promises: reads only, takes a few milliseconds, and passes over what vanishes or may not be seen meanwhile. Any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from mbframework.files import Files
from mbframework.spool import layout

#: Directories to watch, separated as in ``PATH``.
VARIABLE = "MBFRAMEWORK_DIRS"
#: A line of /proc/locks: the process that holds a lock of the kind that lanes have.
_HOLDER = re.compile(rb"FLOCK\s+\S+\s+WRITE\s+([0-9]+)\s")
_LOCKS = "/proc/locks"
_LOCKS_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A buffer's directory, absolute, and ``why`` it was found: "current directory", "MBFRAMEWORK_DIRS",
    "process 4242"."""

    path: str
    why: str


def find_buffers(files: Files | None = None) -> list[Found]:
    """The buffers in sight, each once: the current directory, those that MBFRAMEWORK_DIRS names (there or not), and
    those that a process has open, as far as this user may see its files."""
    found: dict[str, Found] = {}
    for each in (*_here(), *_named(), *_open(files or Files())):
        found.setdefault(os.path.realpath(each.path), each)
    return list(found.values())


def _here() -> Iterator[Found]:
    # The directory that a process stands in may have been removed.
    with suppress(OSError):
        here = os.path.abspath(os.curdir)
        if _is_buffer(here):
            yield Found(here, "current directory")


def _named() -> Iterator[Found]:
    for path in os.environ.get(VARIABLE, "").split(os.pathsep):
        if path:
            with suppress(OSError):
                yield Found(os.path.abspath(path), VARIABLE)


def _open(files: Files) -> Iterator[Found]:
    """The buffers that a process writes to: it has locked the file ``writer.lock``, and has it open."""
    for process in _holders(files):
        descriptors = f"/proc/{process}/fd"
        try:
            names = files.list(descriptors)
        except OSError:
            # It has ended, or is somebody else's.
            continue
        for name in names:
            try:
                target = os.path.realpath(os.path.join(descriptors, name))
            except OSError:
                # Closed at this moment.
                continue
            if os.path.basename(target) == layout.WRITER_LOCK_FILE:
                path = os.path.dirname(os.path.dirname(target))
                if _is_buffer(path):
                    yield Found(path, f"process {process}")


def _holders(files: Files) -> list[int]:
    """The processes that hold a lock, the youngest number first; none where the system does not tell."""
    try:
        fd = files.open(_LOCKS, write=False)
    except OSError:
        return []
    try:
        raw = files.pread(fd, _LOCKS_SIZE, 0)
    except OSError:
        return []
    finally:
        files.close(fd)
    # 0: of another container.
    return sorted({int(number) for number in _HOLDER.findall(raw)} - {0}, reverse=True)


def _is_buffer(path: str) -> bool:
    return os.path.isfile(os.path.join(path, layout.BUFFER_FILE))
