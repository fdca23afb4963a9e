"""Behind damage: the next intact frame is found, and no other."""

from __future__ import annotations

from mbframework.spool import frame
from mbframework.spool.walk import find_frame

_SALT = 7


def test_the_first_frame_within_the_sequences_that_are_asked_for_is_found() -> None:
    frames = [
        frame.encode_many(_SALT, first, 1, b"t", values)
        for first, values in [(5, [b"a"]), (6, [b"b", b"c"]), (8, [b"d"])]
    ]
    raw = b"".join(frames)
    starts = [0, len(frames[0]), len(frames[0]) + len(frames[1])]

    def found(start: int, at: int, end: int | None = None) -> tuple[int, int] | None:
        survivor = find_frame(lambda _, size, offset: raw[offset : offset + size], 0, _SALT, start, at, end)
        return survivor and (survivor[0], survivor[1].first)

    assert found(0, 5) == (starts[0], 5)
    assert found(8, 5) == found(0, 6) == (starts[1], 6)
    assert found(0, 7) == (starts[2], 8)
    assert found(0, 5, 6) == (starts[0], 5)
    assert found(8, 6, 7) is None
    assert found(0, 9) is None
