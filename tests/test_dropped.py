"""Which dead letters were dropped, on a device that loses some of it."""

from __future__ import annotations

from pathlib import Path

from mbframework.dropped import Dropped
from tests.faulty_files import BadSectors

SALT = 7


def test_an_unreadable_page_costs_what_stood_on_it_and_adding_goes_on(tmp_path: Path) -> None:
    files = BadSectors()
    dropped = Dropped(files, str(tmp_path))
    spans = [(number, number + 1) for number in range(0, 1000, 2)]
    dropped.add((span, SALT) for span in spans)
    assert dropped.spans() == {SALT: spans}
    files.refuse(str(tmp_path / "dropped.1"), [1])
    left = dropped.spans()[SALT]
    # A record is 24 bytes; one more stands across the page's beginning.
    assert set(left) < set(spans)
    assert 4096 // 24 <= len(spans) - len(left) <= 4096 // 24 + 2
    assert (left[0], left[-1]) == (spans[0], spans[-1])
    dropped.add([((5000, 5001), SALT)])
    assert dropped.spans() == {SALT: [*left, (5000, 5001)]}


def test_what_a_power_loss_tore_off_the_end_is_written_over(tmp_path: Path) -> None:
    dropped = Dropped(BadSectors(), str(tmp_path))
    dropped.add([((1, 2), SALT), ((5, 6), SALT)])
    file = tmp_path / "dropped.1"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    dropped.add([((9, 10), SALT)])
    assert dropped.spans() == {SALT: [(1, 2), (9, 10)]}
