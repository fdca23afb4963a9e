"""What lanes may take of the bytes that they share, whatever they do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mbframework.budget import Budget, Share

#: Segments that a lane with fewer cannot remove any of.
_STAY = 2


class Lane:
    """Segments of one byte; one that prunes answers at once."""

    def __init__(self, budget: Budget, name: str, limit: int, keeps: bool) -> None:
        self.least_left: int | None = None
        self.share: Share = budget.join(name, 0, 0, limit, shrink=False, wake=None if keeps else self._give)

    def _give(self) -> None:
        share = self.share
        left = max(share.held - share.wanted, min(share.held, _STAY))
        self.least_left = left - share.part
        share.note(left)
        share.answer()

    def write(self) -> bool:
        share = self.share
        return share.claim(share.held, 1) or share.ask(1)


@given(
    lanes=st.lists(st.tuples(st.integers(4, 30), st.booleans()), min_size=1, max_size=5),
    spare=st.integers(0, 40),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 30)), max_size=60),
)
def test_every_lane_can_always_have_its_part(
    lanes: list[tuple[int, bool]], spare: int, steps: list[tuple[int, int]]
) -> None:
    budget = Budget(4 * len(lanes) + spare, len(lanes))
    opened: dict[int, Lane] = {}
    for which, number in steps:
        which %= len(lanes)
        # They are opened one after another, which must make no difference.
        lane = opened.get(which) or Lane(budget, f"lane-{which}", *lanes[which])
        opened[which] = lane
        share = lane.share
        if number < 0:
            share.note(max(0, share.held + number))
        for _ in range(number):
            if share.held >= share.limit:
                break
            before = share.held
            got = lane.write()
            assert got or before >= share.part, f"{before} of {share.part} held"
            assert share.held == before + got
            if not got:
                break
        assert budget.held() <= budget.total
        # Nobody was made to give of his part.
        assert all(each.least_left is None or each.least_left >= 0 for each in opened.values())
    # Opened again, however often, they have no more than before.
    again = Budget(budget.total, len(lanes))
    for which, (limit, keeps) in enumerate(lanes):
        held = opened[which].share.held if which in opened else 0
        again.join(f"lane-{which}", held, 3, limit, shrink=False, wake=None if keeps else again.changed.notify_all)
    assert again.total == budget.total


def test_a_smaller_limit_of_one_lane_is_room_for_another() -> None:
    budget = Budget(100, 3)
    keeps = Lane(budget, "keeps", 100, keeps=True)
    assert keeps.share.most() == 34
    Lane(budget, "small", 10, keeps=False)
    Lane(budget, "also", 100, keeps=True)
    assert keeps.share.most() == 57
    assert keeps.share.claim(0, 57)
    assert not keeps.share.claim(57, 1)
    assert "57 bytes of the total_size of 100 bytes, which the lanes share, are reached" in keeps.share.why(1)
