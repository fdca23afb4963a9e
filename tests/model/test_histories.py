"""Random histories: anything that a program, its provider, its disk and its machine may do, in any order.

``MBFRAMEWORK_TEST_MODEL=long`` looks for hours' worth in minutes; a failure is printed as the steps that repeat it.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mbframework import DirectoryError
from tests.faulty_files import Killed
from tests.model import acts
from tests.model.acts import Act
from tests.model.world import World, no_defects

LONG = os.environ.get("MBFRAMEWORK_TEST_MODEL") == "long"

OPTIONS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in acts.OPTIONS.items()})
SIZES = st.lists(st.sampled_from(acts.SIZES), min_size=1, max_size=6)
PATTERNS = st.one_of(st.none(), st.sampled_from(["nothing", "everything", "names", "data"]), st.integers(100, 1 << 32))
#: Fewer of what ends much.
ACTS: st.SearchStrategy[Act] = st.one_of(
    st.tuples(st.just("write"), SIZES.map(tuple)),
    st.tuples(st.just("write_many"), SIZES.map(tuple)),
    st.tuples(st.just("send"), st.tuples(st.integers(1, 4))),
    st.tuples(st.just("keep_house"), st.tuples(st.sampled_from([0.01, 2.0, 60.0]))),
    st.tuples(st.just("fail"), st.tuples(st.integers(1, 2), st.sampled_from([None, 0, 1, 2]), st.booleans())),
    st.tuples(st.sampled_from(["report", "sync", "purge", "pause", "resume", "down", "up", "roll"]), st.just(())),
    st.tuples(st.just("mode"), st.tuples(st.sampled_from(acts.MODES))),
    st.tuples(st.just("reject"), st.tuples(st.sampled_from([0, 3, 5]))),
    st.tuples(st.just("room"), st.tuples(st.sampled_from([0, 10_000, 100_000, 1 << 40]))),
    st.tuples(st.just("close"), st.just(())),
)
#: What another thread of the program may do at any moment.
ASIDE: st.SearchStrategy[Act] = st.one_of(
    st.tuples(st.just("write"), SIZES.map(tuple)),
    st.tuples(st.sampled_from(["purge", "pause", "report", "sync", "keep_house"]), st.just(())),
)
ERRORS = st.sampled_from(acts.ERRORS)
CALLS = st.lists(st.sampled_from(acts.CALLS), max_size=3)


class Histories(RuleBasedStateMachine):
    """See the module."""

    @initialize(options=OPTIONS, seed=st.integers(0, 1000), kind=st.sampled_from(["ext4", "ext4", "btrfs"]))
    def begin(self, options: dict[str, Any], seed: int, kind: str) -> None:
        random.seed(seed)
        self.world = World.begin(seed, kind=kind, live_after=0.0, block_timeout=1.0, **acts.allowed(options))
        self.world.open()

    @rule(act=ACTS)
    def happens(self, act: Act) -> None:
        self.play(act)

    @rule(act=ACTS, again=ACTS)
    def both_happen(self, act: Act, again: Act) -> None:
        self.play(act)
        self.play(again)

    @rule(pattern=PATTERNS)
    def stops(self, pattern: str | int | None) -> None:
        self.world.replaced(pattern)

    @rule(act=ACTS, nth=st.integers(1, 40), pattern=PATTERNS)
    def stops_in_the_middle(self, act: Act, nth: int, pattern: str | int | None) -> None:
        world = self.world
        left = nth

        def watch(call: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                world.disk.dead = True

        world.disk.watch = watch
        try:
            self.play(act)
        except Killed:
            pass
        world.replaced(pattern)
        world.disk.watch = lambda call: None

    @rule(nth=st.integers(1, 60), pattern=PATTERNS, again=PATTERNS)
    def stops_and_stops_while_it_opens(self, nth: int, pattern: str | int | None, again: str | int | None) -> None:
        world, left = self.world, nth
        world.replaced(pattern)
        disk = world.disk

        def watch(call: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                disk.dead = True

        disk.watch = watch
        try:
            world.open()
        except Killed:
            world.replaced(again)
        except (OSError, DirectoryError):
            assert world.disk.failures
        world.disk.watch = lambda call: None

    @rule(act=ACTS, number=ERRORS, calls=CALLS, first=st.integers(1, 6), times=st.sampled_from([1, 1, 2, 3, 1000]))
    def the_device_fails(self, act: Act, number: int, calls: list[str], first: int, times: int) -> None:
        with self.world.disk.failing(number, *calls, first=first, times=times):
            self.play(act)

    @rule(act=ACTS, aside=ASIDE, call=st.sampled_from(["datasync", "pwrite", "sync_directory", "rename", "fill",
          "reserve", "unlink", "truncate"]), nth=st.integers(1, 4))  # fmt: skip
    def another_thread_comes_between(self, act: Act, aside: Act, call: str, nth: int) -> None:
        if aside[0] in ("keep_house", "report") and act[0] not in ("send", "sync", "purge", "pause", "mode"):
            # Each of these is one thread.
            return
        only_writes = aside[0] == "write" and self.world.options["fsync"] != "always"
        with self.world.during(call, lambda: self.play(aside), nth, only_writes=only_writes):
            self.play(act)

    @rule(aside=ASIDE, act=ACTS, times=st.integers(1, 3))
    def while_in_hand(self, aside: Act, act: Act, times: int) -> None:
        def meanwhile() -> None:
            self.world.meanwhile = lambda: None
            self.play(aside)
            if act[0] not in ("close", "send"):
                self.play(act)

        self.world.meanwhile = meanwhile
        self.play(("send", (times,)))
        self.world.meanwhile = lambda: None

    def play(self, act: Act) -> None:
        acts.play(self.world, act)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        try:
            world.disk.error = lambda call: 0
            world.disk.watch = lambda call: None
            world.disk.room = 1 << 40
            if not world.is_open:
                world.open()
            world.judge()
            world.close()
        finally:
            world.end()


@pytest.mark.timeout(7200 if LONG else 120)
def test_any_history_keeps_the_promises() -> None:
    profile = settings(
        max_examples=20_000 if LONG else 30,
        stateful_step_count=40 if LONG else 20,
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
    )
    with no_defects():
        run_state_machine_as_test(Histories, settings=profile)
