"""Dead letters read and dropped: what is seen, what is removed when, and a stop or a full device at every call."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mbframework.deadletters import DeadLetters
from mbframework.deadstore import DeadStore, Letter, Settled, drop
from mbframework.files import Files
from mbframework.message import NO_PARTITION, NO_TIMESTAMP, Batch, Header, Position, pack_headers
from mbframework.spool.survey import survey
from mbframework.spool.writer import Identity
from tests.faulty_files import FaultyFiles, Killed, calls_of

RUN = b"\x11" * 16
#: Three of them fill a segment.
LARGE = bytes(300_000)
FAR = 1 << 40


def batch_of(first: int, values: Sequence[bytes | None], headers: Sequence[Header] = ()) -> Batch:
    count = len(values)
    return Batch(
        sequences=range(first, first + count), topics=["t"] * count, keys=[b"k", *[None] * (count - 1)], values=values,
        header_blocks=[pack_headers(headers) if headers else None] * count,
        timestamps=[5, *[NO_TIMESTAMP] * (count - 1)], partitions=[NO_PARTITION, *[3] * (count - 1)],
        accepted=[0] * count, position=Position(first + count, RUN),
    )  # fmt: skip


def letters_at(files: Files, home: Path) -> DeadLetters:
    identity = Identity(b"I" * 16, os.urandom(16), files.boot_id(), "main")
    return DeadLetters(
        files, str(home / "dead/main"), identity=identity, total_size=8 << 20, dir_mode=0o700, mapped=False
    )


def filled(home: Path, count: int, *, files: Files | None = None) -> DeadStore:
    """A store of so many letters, three a segment, from lane sequences 101 on; closed."""
    files = files or Files()
    home.mkdir(exist_ok=True)
    dead = letters_at(files, home)
    for number in range(count):
        dead.add(batch_of(101 + number, [b"%d " % number + LARGE]), {0: f"reason {number}"})
    dead.close()
    return DeadStore(files, str(home / "dead/main"))


def ids(store: DeadStore) -> list[int]:
    """The ids of the letters that are seen, which must be those that are counted."""
    seen = [letter.id for letter in store.letters()]
    assert seen == [number for first, end in store.ids() for number in range(first, end)]
    return seen


def segments(store: DeadStore) -> int:
    return sum(name.endswith(".seg") for name in os.listdir(store.directory))


def records(store: DeadStore) -> list[str]:
    return sorted(name for name in os.listdir(store.directory) if name.startswith("dropped."))


def below(position: int) -> Settled:
    return lambda sequence: sequence < position


def drop_here(store: DeadStore, numbers: Sequence[int], settled: int = FAR) -> int:
    return drop(store, numbers, lambda: below(settled), lambda act: act())


def test_nothing_is_seen_where_there_is_nothing(tmp_path: Path) -> None:
    store = DeadStore(Files(), str(tmp_path / "dead/main"))
    assert (ids(store), store.drop(range(1, 100)), store.tidy(below(FAR))) == ([], 0, 0)
    assert not (tmp_path / "dead").exists()


def test_a_letter_is_the_message_and_what_became_of_it(tmp_path: Path) -> None:
    files = Files()
    own: list[Header] = [("mb.reason", b"mine"), ("h", None), ("h", b"")]
    dead = letters_at(files, tmp_path)
    dead.add(batch_of(7, [None, b""], own), {0: "x\u00e9", 1: "y"})
    store = DeadStore(files, dead.directory)
    one, two = store.letters()
    assert one == Letter(
        id=1, at=one.at, reason="x\u00e9", sequence=7, run=RUN.hex(), topic="t", key=b"k", value=None,
        headers=tuple(own), timestamp=5, partition=None,
    )  # fmt: skip
    assert abs(one.at - files.wall_ns() / 1e9) < 60
    assert (two.sequence, two.key, two.value, two.timestamp, two.partition) == (8, None, b"", None, 3)
    assert one.size == 1 + 1 + len("mb.reason") + 4 + 2
    assert [letter.id for letter in store.letters([2, 9])] == [2]
    dead.close()


def test_what_is_dropped_is_not_seen_and_its_segment_goes_with_the_last_of_it(tmp_path: Path) -> None:
    store = filled(tmp_path, 10)
    assert (ids(store), segments(store)) == (list(range(1, 11)), 4)
    assert drop_here(store, [2, 5, 5, 99]) == 2
    assert (ids(store), segments(store)) == ([1, 3, 4, 6, 7, 8, 9, 10], 4)
    assert drop_here(store, [5, 4, 6]) == 2
    # The one in the middle goes, though the first stays.
    assert (ids(store), segments(store)) == ([1, 3, 7, 8, 9, 10], 3)
    assert drop_here(store, [10]) == 1
    # The last one tells how far the store has come.
    assert (ids(store), segments(store)) == ([1, 3, 7, 8, 9], 3)
    assert drop_here(store, range(1 << 62)) == 5
    assert (ids(store), segments(store), records(store)) == ([], 0, [])


def test_an_emptied_store_goes_on_and_its_accounts_balance(tmp_path: Path) -> None:
    files = Files()
    store = filled(tmp_path, 5)
    drop_here(store, range(100))
    dead = letters_at(files, tmp_path)
    assert dead.add(batch_of(200, [b"new"]), {0: "again"}) == (1, "")
    dead.close()
    (letter,) = store.letters()
    assert (letter.sequence, letter.value) == (200, b"new")
    assert letter.id > 5
    known = survey(files, store.directory)
    assert known.seek is not None
    assert known.head is not None
    assert (known.seek.purged, known.seek.lost, known.ordinal, known.seek.ordinal) == (5, 0, 6, 5)
    assert (known.head.lost_live, known.head.lost_linger) == (0, 0)


def test_a_repeat_of_what_was_dropped_is_known_until_it_cannot_come(tmp_path: Path) -> None:
    files = Files()
    store = filled(tmp_path, 3)
    # The lane's seek on the device stands in front of the second: it, and the third, may come again.
    assert drop_here(store, range(100), settled=102) == 3
    assert (ids(store), segments(store)) == ([], 1)
    dead = letters_at(files, tmp_path)
    for sequence in (102, 103):
        assert dead.add(batch_of(sequence, [b"the same"]), {0: "again"}) == (1, "")
    dead.close()
    assert ids(store) == []
    assert drop_here(store, [], settled=104) == 0
    assert segments(store) == 0


def test_letters_are_added_while_others_are_dropped(tmp_path: Path) -> None:
    files = Files()
    dead = letters_at(files, tmp_path)
    store = DeadStore(files, dead.directory)
    dead.add(batch_of(1, [b"a", b"b", b"c"]), {0: "", 1: "", 2: ""})
    assert store.drop([1, 3]) == 2
    dead.add(batch_of(4, [b"d"]), {0: ""})
    assert ids(store) == [2, 4]
    # Open, its segment is not to be removed.
    assert store.drop(range(100)) == 2
    assert store.tidy(below(FAR)) == 0
    dead.close()
    assert store.tidy(below(FAR)) == 1


def test_records_that_no_segment_needs_are_forgotten(tmp_path: Path) -> None:
    store = filled(tmp_path, 9)
    for number in (2, 4, 6, 8):
        drop_here(store, [number])
    assert records(store) == ["dropped.1"]
    drop_here(store, [1, 3, 5, 7])
    assert ids(store) == [9]
    # The seek says it all.
    assert records(store) == []
    store = filled(tmp_path / "other", 9)
    for number in (2, 4, 5, 6):
        drop_here(store, [number])
    assert (ids(store), segments(store)) == ([1, 3, 7, 8, 9], 2)
    assert records(store) == ["dropped.2"]
    assert (Path(store.directory) / "dropped.2").stat().st_size == 24


def test_a_record_is_of_one_segment_and_a_torn_one_counts_for_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "a", 3)
    store.drop([1])
    store.drop([2])
    other = filled(tmp_path / "b", 3)
    record = Path(store.directory) / "dropped.1"
    shutil.copy(record, other.directory)
    assert ids(other) == [1, 2, 3]
    record.write_bytes(record.read_bytes()[:-1])
    assert ids(store) == [2, 3]
    assert store.drop([3]) == 1
    assert ids(store) == [2]


def outcome(act: Callable[[], Any]) -> bool:
    """Whether it was done; False where it was stopped or failed."""
    try:
        act()
    except (Killed, OSError):
        return False
    return True


@pytest.mark.parametrize("how", ["killed", "full"])
def test_a_stop_at_any_call_loses_no_letter_and_shows_none_again(tmp_path: Path, how: str) -> None:
    steps: list[list[int]] = [[2], [4, 5, 6], [1, 3], [7, 8]]

    def work(files: FaultyFiles, home: Path, done: list[int], begun: list[int]) -> None:
        store = DeadStore(files, str(home / "dead/main"))
        for step in steps:
            begun.extend(step)
            store.drop(step)
            done.extend(step)
            store.tidy(below(FAR))

    filled(tmp_path / "made", 9)

    def home_of(name: str) -> Path:
        shutil.copytree(tmp_path / "made", tmp_path / name)
        return tmp_path / name

    total = calls_of(lambda files: work(files, home_of("counted"), [], []))
    assert total > 20
    for call in range(1, total + 1):
        home = home_of(str(call))
        files = FaultyFiles(Files().boot_id())
        done: list[int] = []
        begun: list[int] = []
        if how == "killed":
            files.stop_at(call)
        else:
            files.fail_at(call, errno.ENOSPC)
        # Where the device is full for one call only, the seek is stored by the next one.
        ended = outcome(lambda files=files, home=home, done=done, begun=begun: work(files, home, done, begun))
        assert not ended or how == "full"
        files.bury()
        store = DeadStore(Files(), str(home / "dead/main"))
        left = set(ids(store))
        assert left.isdisjoint(done), call
        assert left >= set(range(1, 10)) - set(begun), call
        # Everything can still be done.
        for step in steps:
            drop_here(store, step)
        assert ids(store) == [9], call
        assert segments(store) == 1, call
        shutil.rmtree(home)
