"""What a directory says at a glance, and that it is what the whole of it says."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mbframework.accounts import accounts_of
from mbframework.files import Files
from mbframework.spool import layout
from mbframework.spool.survey import Survey, glance, survey
from tests.examples import examples
from tests.faulty_files import FaultyFiles
from tests.spool.minilane import Memory, MiniLane
from tests.spool.segments import History


def counts(known: Survey) -> tuple[object, ...]:
    """What monitors make of a survey."""
    both = (True, False)
    accounts = [accounts_of(known, running=running, sending=sending) for running in both for sending in both]
    return known.ordinal, known.tail_ordinal, known.spool_end, known.lost_unspooled, accounts


@examples(150)
@given(st.integers(0, 1 << 32))
def test_a_glance_counts_what_a_survey_counts(seed: int) -> None:
    chance = random.Random(seed)
    directory = tempfile.mkdtemp()
    files, memory = FaultyFiles(), Memory()
    try:
        for _ in range(2):
            lane = MiniLane(files, directory, memory, mapped=chance.random() < 0.8)
            lane.play(chance, chance.choice([5, 60, 200]))
            if chance.random() < 0.5:
                lane.close()
        files.boot = chance.choice([files.boot, b"C" * 16])
        if chance.random() < 0.1:
            os.unlink(os.path.join(directory, chance.choice(["seek", "head"])))
        whole, some = survey(files, directory), glance(files, directory)
        assert counts(some) == counts(whole)
        assert (some.count, some.size, some.waiting_size) == (whole.count, whole.size, whole.waiting_size)
        assert (some.unreadable, whole.unopened.count) == ([], 0)
        # Headers that are damaged, wherever they stand, hide their segments from both.
        for name in [each for each in os.listdir(directory) if layout.parse_name(each) and chance.random() < 0.3]:
            with open(os.path.join(directory, name), "r+b") as file:
                file.write(b"\xa5" * 256)
        assert counts(glance(files, directory)) == counts(survey(files, directory))
    finally:
        files.bury()
        shutil.rmtree(directory)


class CountingFiles(Files):
    """The names that were opened; and one that is gone when it is to be opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.gone = ""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False, write: bool = True) -> int:
        self.opened.append(os.path.basename(path))
        if path == self.gone:
            os.unlink(path)
        return super().open(path, create=create, exclusive=exclusive, write=write)


def many(directory: Path) -> History:
    history = History(str(directory))
    for number in range(300):
        history.add([[b"%d" % number]])
    return history


def test_a_glance_opens_the_first_and_the_last_of_very_many(tmp_path: Path) -> None:
    history, files = many(tmp_path), CountingFiles()
    known = glance(files, history.directory)
    assert (known.count, known.ordinal, known.spool_end) == (300, 300, 301)
    names = {"head", "seek", layout.sealed_name(1), layout.sealed_name(300)}
    # What is missing may be in the middle of being made anew.
    assert set(files.opened) == names | {"head.new", "seek.new"}


def test_only_a_survey_finds_a_damaged_header_in_the_middle(tmp_path: Path) -> None:
    history = many(tmp_path)
    damaged = history.segments[150].path
    with open(damaged, "r+b") as file:
        file.write(b"?")
    known, seen = survey(Files(), history.directory), glance(Files(), history.directory)
    assert (known.count, known.unreadable) == (299, [os.path.basename(damaged)])
    assert (seen.count, seen.unreadable) == (300, [])
    assert counts(known) == counts(seen)


def test_what_the_sender_removes_meanwhile_is_not_unreadable(tmp_path: Path) -> None:
    history, files = many(tmp_path), CountingFiles()
    files.gone = history.segments[0].path
    known = survey(files, history.directory)
    assert (known.count, known.unreadable) == (299, [])
