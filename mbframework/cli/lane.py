"""Which lane of a buffer a command looks at, and how its messages are shown."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click

from mbframework import directory as directories
from mbframework.browse import Entry
from mbframework.cli.terminal import printable
from mbframework.errors import ConfigurationError, DirectoryError
from mbframework.files import Files
from mbframework.spool.layout import MAIN_LANE
from mbframework.units import format_size

lane_option = click.option("--lane", metavar="LANE", help="The lane to look at.  [default: main]")


def lanes_in(files: Files, directory: str) -> list[str]:
    """The lanes of the buffer in a directory.

    :raises DirectoryError: it is not a buffer.
    """
    path = os.path.abspath(directory)
    if not os.path.isdir(path):
        raise DirectoryError(f"{path} is not a directory; give the directory of a buffer", path=path)
    directories.read(files, path)
    return directories.lanes_of(files, path)


def lane_path(files: Files, directory: str, lane: str | None) -> str:
    """The directory of a lane.

    :raises DirectoryError: the directory is not a buffer.
    :raises ConfigurationError: there is no such lane.
    """
    lanes = lanes_in(files, directory)
    name = MAIN_LANE if lane is None else lane
    if name not in lanes:
        there = f"there are {', '.join(lanes)}" if lanes else "nothing was written yet"
        raise ConfigurationError(f"no lane {name!r} in {directory}: {there}", option="lane")
    return os.path.join(os.path.abspath(directory), name)


def instant(nanoseconds: int) -> str:
    """A time as ISO 8601 in UTC with milliseconds; a number where no calendar has it."""
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds}ns"


def preview(data: bytes | None, most: int) -> str:
    """Bytes in one line that cannot steer a terminal: text where they are UTF-8, else hexadecimal; at most about
    ``most`` characters."""
    if data is None:
        return "(none)"
    if not data:
        return '""'
    head = data[: 4 * most]
    try:
        # A character that was cut in two at the end is none.
        text = head.decode() if len(head) == len(data) else head.decode(errors="ignore")
        if len(head) < len(data) and len(text.encode()) < len(head) - 3:
            raise UnicodeDecodeError("utf-8", head, 0, 1, "not UTF-8")
    except UnicodeDecodeError:
        text = "0x" + head.hex()
    shown = printable(text[:most])
    return shown if len(shown) <= most and len(text) <= most and len(head) == len(data) else f"{shown[: most - 1]}…"


def one_line(entry: Entry, width: int) -> str:
    """A message for people: sequence, time, topic, key, size, value; about ``width`` columns."""
    key = "-" if entry.key is None else preview(entry.key, 24)
    start = f"{entry.sequence}  {instant(entry.accepted)}  {preview(entry.topic.encode(), 40)}  {key}"
    start += f"  {format_size(entry.size)}  "
    return start + preview(entry.value, max(16, width - len(start)))
