"""Which lane takes a topic, and what a lane is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework.config import Config
from mbframework.errors import ConfigurationError, MessageError
from mbframework.routing import Routing
from mbframework.units import KiB, MiB


def routing(lanes: Any, provider: object = "fake:", route: Any = None, **options: object) -> Routing:
    return Routing(Config.from_mapping({"directory": "/nowhere", "lanes": lanes, **options}), provider, route)


def test_the_first_lane_that_matches_takes_a_topic() -> None:
    table = routing({"eu": {"topics": ["orders.eu", "*.eu.*"]}, "orders": {"topics": "orders.*"}})
    topics = ["orders.eu", "a.eu.b", "orders.us", "Orders.us", "orders", "x\ny"]
    assert [table.lane_of(topic) for topic in topics] == ["eu", "eu", "orders", "main", "main", "main"]


def test_a_function_goes_before_the_patterns() -> None:
    table = routing({"a": {"topics": "*"}, "b": {}}, route=lambda topic: "b" if topic == "x" else None)
    assert [table.lane_of(topic) for topic in "xy"] == ["b", "a"]
    with pytest.raises(MessageError, match=r"topic 'x': route gave 'c'; expected one of a, main, or None"):
        routing({"a": {"topics": "*"}}, route=lambda topic: "c").lane_of("x")


def test_without_a_provider_for_the_rest_its_topics_are_refused() -> None:
    table = routing({"a": {"topics": "a.*", "provider": "fake:"}}, provider=None)
    assert list(table.plans) == ["a"]
    with pytest.raises(MessageError, match=r"topic 'b' matches no lane \(a\), and there is no provider for the rest"):
        table.lane_of("b")
    # Where nobody sends in this process, all is kept.
    assert routing({"a": {"topics": "a.*"}}, provider=None).lane_of("b") == "main"


def test_a_lane_has_the_options_of_all_and_its_own() -> None:
    own = FakeProvider()
    lanes = {"a": {"topics": "a", "mode": "always", "provider": own}, "b": {"topics": "b", "total_size": "8MiB"}}
    table = routing(lanes, total_size="64MiB", batch_messages=7, provider=None, lane="rest")
    a, b = table.plans.values()
    assert (a.config.mode, a.config.batch_messages, a.config.total_size, a.provider) == ("always", 7, 64 * MiB, own)
    assert (b.config.mode, b.config.batch_messages, b.config.total_size) == ("buffer", 7, 8 * MiB)
    # Four segments of each within what they share.
    assert (a.config.segment_size, b.config.segment_size) == (8 * MiB, 2 * MiB)
    assert a.config.lane == "a"


def test_many_lanes_get_small_segments() -> None:
    table = routing({f"l{n}": {"topics": f"{n}"} for n in range(99)}, total_size="100MiB")
    assert {plan.config.segment_size for plan in table.plans.values()} == {256 * KiB}


def test_the_lane_of_a_second_process_has_the_same_plan() -> None:
    table = routing({"a": {"topics": "a"}})
    assert table.plan_of("a-2") is table.plan_of("a") is table.plans["a"]
    assert table.plan_of("main-12") is table.plans["main"]
    assert table.plan_of("b-2") is table.plan_of("a-b") is None


@pytest.mark.parametrize(
    "lanes, words",
    [
        ({}, r"lanes: no lane is given; expected names"),
        ({"A": {"topics": "a"}}, r"lanes: lane: 'A': expected 1 to 100 of a-z"),
        ({"a": "b"}, r"lanes\.a: str; expected its options"),
        ({"a": {}}, r"lanes\.a: no topics; expected patterns"),
        ({"a": {"topics": 5}}, r"lanes\.a\.topics: expected patterns of topics"),
        ({"a": {"topics": ["x", ""]}}, r"lanes\.a\.topics: expected patterns of topics"),
        ({"a": {"topics": "a", "moed": "always"}}, r"lanes\.a: unknown option 'moed'; did you mean 'mode'"),
        ({"a": {"topics": "a", "mode": "allways"}}, r"lanes\.a: mode: 'allways': expected .*did you mean 'always'"),
        ({"a": {"topics": "a", "directory": "/x"}}, r"lanes\.a\.directory: one for all lanes"),
        ({"a": {"topics": "a", "segment_size": "32MiB", "total_size": "1GiB"}}, r"lanes\.a\.segment_size: 32MiB; exp"),
        ({"a": {"topics": "a", "total_size": "2GiB"}}, r"lanes\.a\.total_size: 2GiB; expected at most .* 128MiB"),
        ({"a": {"topics": "a"}, "a-2": {"topics": "b"}}, r"lanes\.a-2: that is what the lane 'a' is called in a"),
        ({f"l{n}": {"topics": "x"} for n in range(600)}, r"total_size: 128MiB for 601 lanes; expected 153856KiB"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_lane_and_option(lanes: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{words}"):
        routing(lanes, total_size="128MiB")


def test_a_file_says_it_in_tables(tmp_path: Path) -> None:
    file = tmp_path / "outbox.toml"
    file.write_text("[mbframework]\nprovider = 'fake:'\n[mbframework.lanes.a]\ntopics = ['a.*']\nmode = 'always'\n")
    table = Routing(Config.layered(file=file, directory="/nowhere"))
    assert (table.lane_of("a.b"), table.plans["a"].config.mode, table.plans["main"].config.provider) == (
        "a", "always", "fake:",
    )  # fmt: skip
    file.write_text("[mbframework.lanes.a]\ntopics = ['a.*']\nmode = 'allways'\n")
    with pytest.raises(ConfigurationError, match=r"outbox\.toml: \[mbframework\]: lanes\.a: mode: 'allways'"):
        Routing(Config.layered(file=file, directory="/nowhere"))
