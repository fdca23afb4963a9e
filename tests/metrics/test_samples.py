"""From what was read to samples: complete, balanced, and a word for what could not be read."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mbframework.metrics import catalogue
from mbframework.metrics.catalogue import METRICS, REASONS, Metric
from mbframework.metrics.samples import LaneReading, Reading, Sample, samples_of
from mbframework.status import STATES, LaneStatus, SeekPosition

LANE = LaneStatus(
    name="main", mode="buffer", state="buffering", state_since=5.0, accepted=21, delivered=1, pruned=1, expired=2,
    dead=3, dead_letters=2, purged=4, lost=9, lost_live=2, lost_linger=2, lost_disk=2, returned=3, resident_messages=1,
    resident_bytes=80, segments=1, oldest_age_s=7.5, last_error="down", last_error_at=6.0, failures=2,
    seek=SeekPosition(1, 21, 128),
)  # fmt: skip


def values(samples: dict[Metric, list[Sample]], metric: Metric) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in samples[metric]}


def test_every_metric_has_its_labels_and_the_accounts_add_up() -> None:
    found = samples_of([Reading("/outbox", (LaneReading(LANE, limit=1_000, retries=4),), ("a problem",))])
    assert tuple(found) == METRICS
    for metric, samples in found.items():
        assert samples, metric.name
        assert all(len(sample.labels) == len(metric.labels) for sample in samples)
    discarded = values(found, catalogue.DISCARDED)
    assert {labels[2] for labels in discarded} == set(REASONS)
    one = ("/outbox", "main")
    gone = values(found, catalogue.DELIVERED)[one] + sum(discarded.values())
    assert LANE.balanced
    assert values(found, catalogue.ACCEPTED)[one] == gone + values(found, catalogue.BUFFER_MESSAGES)[one]
    assert values(found, catalogue.OLDEST) == {one: 7.5}
    assert values(found, catalogue.BUFFER_LIMIT_BYTES) == {one: 1_000}
    assert values(found, catalogue.RETRIES) == {one: 4}
    assert values(found, catalogue.LAST_ERROR) == {one: 6.0}
    assert values(found, catalogue.DEAD_LETTERS) == {one: 2}
    assert values(found, catalogue.PROBLEMS) == {("/outbox",): 1}
    states = values(found, catalogue.STATE)
    assert {labels[2] for labels in states} == set(STATES)
    assert [labels[2] for labels, value in states.items() if value] == ["buffering"]


def test_what_is_not_known_has_no_sample() -> None:
    unknown = replace(LANE, mode="unknown", oldest_age_s=None, last_error_at=None, state_since=None)
    found = samples_of([Reading("/outbox", (LaneReading(unknown),))])
    for metric in (
        catalogue.OLDEST, catalogue.LAST_ERROR, catalogue.STATE_SINCE, catalogue.BUFFER_LIMIT_BYTES, catalogue.RETRIES,
    ):  # fmt: skip
        assert found[metric] == []
    assert sum(values(found, catalogue.MODE).values()) == 0
    # Where nothing waits, the oldest has waited for no time.
    empty = replace(unknown, resident_messages=0)
    assert values(samples_of([Reading("/outbox", (LaneReading(empty),))]), catalogue.OLDEST) == {("/outbox", "main"): 0}


def test_a_directory_that_cannot_be_read_is_down_and_hides_no_other() -> None:
    found = samples_of([Reading("/gone", error="it is gone"), Reading("/outbox", (LaneReading(LANE),))])
    assert values(found, catalogue.UP) == {("/gone",): 0, ("/outbox",): 1}
    assert values(found, catalogue.PROBLEMS) == {("/outbox",): 0}
    assert {sample.labels[0] for sample in found[catalogue.ACCEPTED]} == {"/outbox"}


@given(
    st.lists(
        st.builds(
            Reading,
            st.sampled_from(["/a", "/b\udcff\n"]),
            st.lists(st.builds(LaneReading, st.sampled_from([LANE, replace(LANE, name="l\x1b2")])), max_size=3).map(
                tuple
            ),
        )
    )
)
def test_no_sample_comes_twice_and_labels_are_text(readings: list[Reading]) -> None:
    for samples in samples_of(readings).values():
        labels = [sample.labels for sample in samples]
        assert len(set(labels)) == len(labels)
        assert all(value.isprintable() and value.encode() for each in labels for value in each)
