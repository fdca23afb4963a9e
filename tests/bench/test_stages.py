"""The stretches of the way to an acknowledgement."""

from __future__ import annotations

from tests.bench.stages import _ends


def test_a_message_waits_for_the_batch_before_its_own() -> None:
    begun, acknowledged = [10, 10, 20, 30, 30], [15, 16, 25, 40, 41]
    assert _ends(begun, acknowledged) == [0, 0, 16, 25, 25]
