"""The listing of a lane's segments: names in every state, foreign files, and files that vanish meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mbframework.errors import UnsupportedFormat
from mbframework.files import Files
from mbframework.spool import layout
from mbframework.spool.index import SegmentIndex
from mbframework.spool.record import close_record
from tests.spool.segments import History


def index_of(directory: Path) -> SegmentIndex:
    index = SegmentIndex(Files(), str(directory))
    index.refresh()
    return index


def test_segments_are_in_the_order_of_their_numbers_whatever_their_names(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    for state in "PAPNA":
        history.add([[b"x"] * 9], state=state, gap=10**9 if state == "N" else 0)
    index = index_of(tmp_path)
    assert [(entry.first, entry.name[0]) for entry in index.entries] == [
        (made.first, os.path.basename(made.path)[0]) for made in history.segments
    ]
    for entry, made in zip(index.entries, history.segments, strict=True):
        assert index.at_or_before(made.first) == entry
        assert index.at_or_before(made.end - 1) == entry
        assert index.after(made.first - 1) == entry
        header = index.header(entry)
        assert header is not None
        assert header.ordinal == made.ordinal
    assert index.at_or_before(0) is None
    assert index.after(history.segments[-1].first) is None


def test_an_entry_that_was_renamed_or_removed_since_is_still_found_or_not(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    made = [history.add([[b"x"]], state=state) for state in "NNAA"]
    index = index_of(tmp_path)
    os.rename(made[0].path, tmp_path / layout.unsealed_name(made[0].first))
    os.rename(made[1].path, tmp_path / layout.sealed_name(made[1].first))
    os.rename(made[2].path, tmp_path / layout.sealed_name(made[2].first))
    os.unlink(made[3].path)
    assert [index.header(entry) is not None for entry in index.entries] == [True, True, True, False]


def test_a_file_under_two_names_counts_once_in_its_later_state(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    made = history.add([[b"x"]], state="N")
    os.link(made.path, tmp_path / layout.unsealed_name(1))
    assert [entry.name[0] for entry in index_of(tmp_path).entries] == ["A"]
    os.link(made.path, tmp_path / layout.sealed_name(1))
    assert [entry.name[0] for entry in index_of(tmp_path).entries] == ["P"]


def test_what_is_no_segment_of_ours_is_neither_listed_nor_touched(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    made = history.add([[b"x"]])
    for name in ("P1.seg", "P00000000000000000002.seg.bak", "N0000000G.prep", "N00000000.prep", ".hidden", "notes"):
        (tmp_path / name).write_bytes(Path(made.path).read_bytes())
    # Prepared, and not yet activated; torn.
    (tmp_path / "N00000001.prep").write_bytes(bytes(8192))
    (tmp_path / "N00000002.prep").write_bytes(Path(made.path).read_bytes()[:100])
    # Our names, on something that is no file.
    (tmp_path / "N00000003.prep").mkdir()
    os.symlink(made.path, tmp_path / "N00000004.prep")
    os.symlink(made.path, tmp_path / layout.sealed_name(7))
    before = sorted(os.listdir(tmp_path))
    index = index_of(tmp_path)
    assert [entry.first for entry in index.entries] == [1, 7]
    assert index.header(index.entries[1]) is None
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_whose_name_and_header_disagree_is_not_opened(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    os.rename(history.add([[b"x"]]).path, tmp_path / layout.sealed_name(5))
    index = index_of(tmp_path)
    assert [index.header(entry) for entry in index.entries] == [None]


def test_a_newer_segment_is_reported_as_such(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    made = history.add([[b"x"]])
    raw = bytearray(Path(made.path).read_bytes())
    raw[8] = layout.FORMAT_MAJOR + 1
    raw[:256] = close_record(bytes(raw[:252]))
    Path(made.path).write_bytes(raw)
    index = index_of(tmp_path)
    with pytest.raises(UnsupportedFormat):
        index.header(index.entries[0])


def test_a_missing_directory_has_no_segments(tmp_path: Path) -> None:
    assert index_of(tmp_path / "missing").entries == []
