"""Damage to segment files, as disks and people do it; each leaves what it does not name as it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Harm = Callable[[Path], object]


def segments(buffer: Path) -> list[Path]:
    """The segment files of lane main, in order."""
    return sorted((buffer / "main").glob("[PA]*.seg"), key=lambda path: path.name[1:])


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def patch(number: int, at: int, data: bytes) -> Harm:
    return lambda buffer: overwrite(segments(buffer)[number], at, data)


def cut(number: int, size: int) -> Harm:
    return lambda buffer: os.truncate(segments(buffer)[number], size)


def remove(*numbers: int) -> Harm:
    def harm(buffer: Path) -> None:
        found = segments(buffer)
        for number in numbers:
            found[number].unlink()

    return harm


def remove_all(buffer: Path) -> None:
    for path in segments(buffer):
        path.unlink()


def everywhere(buffer: Path) -> None:
    for path in segments(buffer):
        overwrite(path, 9000, b"\xee" * 500)
        overwrite(path, 30_000, b"\xee" * 500)


def beside(name: str, data: bytes) -> Harm:
    return lambda buffer: overwrite(buffer / "main" / name, 0, data)


#: Name → what is done to a buffer with ten segments of 64 KiB and 4,000 messages of 100 bytes.
HARMS: dict[str, Harm] = {
    "a byte of the first message": patch(0, 4096 + 60, b"\xff"),
    "three bytes in the middle": patch(2, 30_000, b"\xff" * 3),
    "two pages of zeros in the middle": patch(2, 16_384, bytes(8192)),
    "the first pages of frames": patch(2, 4096, bytes(8192)),
    "the end of a segment is cut off": cut(2, 30_000),
    "the end of the last segment is cut off": cut(-1, 20_000),
    "a header": patch(2, 0, b"\xa5" * 256),
    "the first header": patch(0, 0, b"\xa5" * 256),
    "the last header and all of its page": patch(-1, 0, b"\xa5" * 4096),
    "headers of neighbours": lambda buffer: [overwrite(path, 0, bytes(4096)) for path in segments(buffer)[2:4]],
    "a header and the frames behind it": patch(3, 0, bytes(9000)),
    "everything but the seal": patch(3, 0, bytes(60_000)),
    "a segment of zeros": lambda buffer: overwrite(segments(buffer)[3], 0, bytes(segments(buffer)[3].stat().st_size)),
    "an empty segment file": cut(4, 0),
    "a segment is missing": remove(3),
    "two segments are missing": remove(3, 4),
    "the first segment is missing": remove(0),
    "the last segment is missing": remove(-1),
    "first, middle and last are missing": remove(0, 5, -1),
    "all segments are missing": remove_all,
    "part of a seal": lambda buffer: os.truncate(segments(buffer)[2], segments(buffer)[2].stat().st_size - 3),
    "the head": beside("head", bytes(16_384)),
    "the seek": beside("seek", b"\x11" * 12_288),
    "head and seek": lambda buffer: [beside(name, bytes(12_288))(buffer) for name in ("head", "seek")],
    "every segment twice": everywhere,
}
