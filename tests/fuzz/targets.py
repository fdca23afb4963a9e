"""All that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzz import bytes_targets, lane_targets, text_targets
from tests.fuzz.target import Target

ALL: tuple[Target, ...] = (
    bytes_targets.Frames(),
    bytes_targets.Slots(),
    bytes_targets.SegmentHeaders(),
    bytes_targets.Seals(),
    bytes_targets.Rings(),
    bytes_targets.HeaderBlocks(),
    lane_targets.Reader(),
    lane_targets.Opening(),
    lane_targets.Status(),
    lane_targets.Verify(),
    lane_targets.Dead(),
    text_targets.Events(),
    text_targets.Requests(),
    text_targets.SmallFiles(),
)
BY_NAME = {target.name: target for target in ALL}
#: Names of targets that a fuzzer guided by coverage takes together: those of a module, which are of like pace.
GROUPS = tuple(
    [target.name for target in ALL if type(target).__module__ == module.__name__]
    for module in (bytes_targets, lane_targets, text_targets)
)
