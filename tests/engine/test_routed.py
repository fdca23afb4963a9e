"""Lanes for groups of topics: each on its own, with one limit together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import BufferFull, BufferLocked, MessageBuffer, RoutedBuffer, Sidecar, Undelivered, read_status
from mbframework.config import Config
from mbframework.errors import ConfigurationError, FlushTimeout, MessageError, SenderStuck, UnknownProvider
from mbframework.monitor import Monitor
from tests.engine.rig import FAST, eventually, numbers, padded, program

KiB = 1024
TIGHT: dict[str, Any] = {"total_size": "1MiB", "segment_size": "64KiB", "min_free": 0}


def lanes(**providers: FakeProvider | str) -> dict[str, dict[str, object]]:
    return {name: {"topics": [name, f"{name}.*"], "provider": provider} for name, provider in providers.items()}


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def held(buffer: RoutedBuffer) -> dict[str, int]:
    return {name: status.disk_bytes for name, status in buffer.status().items()}


def test_each_topic_goes_to_its_lane_and_provider(tmp_path: Path) -> None:
    a, b, rest = FakeProvider(), FakeProvider(), FakeProvider()
    with RoutedBuffer(tmp_path / "b", rest, lanes=lanes(a=a, b=b), **FAST) as buffer:
        for number in range(300):
            buffer.write(("a.x", "b", "c")[number % 3], str(number))
        assert list(buffer.write_many("a.y", ["300", "301"])) == [101, 102]
        buffer.flush(60)
        assert numbers(a.messages) == [*range(0, 300, 3), 300, 301]
        assert numbers(b.messages) == list(range(1, 300, 3))
        assert numbers(rest.messages) == list(range(2, 300, 3))
        told = {lane.name: lane.accepted for lane in read_status(tmp_path / "b").lanes}
        assert told.keys() == buffer.status().keys() == {"a", "b", "main"}
        with pytest.raises(MessageError):
            buffer.write([], "x")  # type: ignore[arg-type]
    assert {lane.name: lane.delivered for lane in read_status(tmp_path / "b").lanes} == {
        "a": 102,
        "b": 100,
        "main": 100,
    }


@pytest.mark.parametrize("trouble", ["down", "stuck"])
def test_one_lanes_trouble_delays_no_other(tmp_path: Path, trouble: str) -> None:
    bad, good = FakeProvider(), FakeProvider()
    bad.down() if trouble == "down" else bad.stick()
    buffer = RoutedBuffer(tmp_path / "b", lanes=lanes(bad=bad, good=good), **FAST)
    try:
        for number in range(5000):
            buffer.write("bad", padded(number, 200))
            buffer.write("good", str(number))
        buffer.lanes["good"].flush(60)
        assert numbers(good.messages) == list(range(5000))
        with pytest.raises(FlushTimeout) as late:
            buffer.flush(0.05)
        assert late.value.remaining == 5000
    finally:
        if trouble == "down":
            buffer.close()
        else:
            with pytest.raises(SenderStuck):
                buffer.close()
            bad.release()
    kept = {lane.name: lane.resident for lane in read_status(tmp_path / "b").lanes}
    assert kept == {"bad": 5000, "good": 0}


def test_the_lane_that_holds_the_most_makes_room(tmp_path: Path) -> None:
    providers = {name: FakeProvider() for name in "abc"}
    for provider in providers.values():
        provider.down()
    with RoutedBuffer(tmp_path / "b", lanes=lanes(**providers), **FAST | TIGHT) as buffer:
        # One takes nearly all there is, while the others need little.
        for number in range(4000):
            buffer.write("a", padded(number, 500))
        eventually(lambda: sum(held(buffer).values()) <= 1024 * KiB, "the limit")
        assert held(buffer)["a"] > 600 * KiB
        for number in range(400):
            buffer.write("b", padded(number, 500))
        status = buffer.status()
        assert status["b"].pruned == 0
        assert status["a"].pruned > 2000
        # Then all want more than there is.
        for number in range(4000):
            for name in "abc":
                buffer.write(name, padded(number, 500))
        eventually(lambda: sum(held(buffer).values()) <= 1024 * KiB, "the limit")
        sizes = held(buffer)
        # Equal parts, as far as whole segments go; of each lane one is being filled and one ready.
        assert min(sizes.values()) >= 1024 * KiB // 3 - 4 * 64 * KiB, sizes
        for name, provider in providers.items():
            pruned = buffer.status()[name].pruned
            provider.up()
            buffer.lanes[name].flush(60)
            assert len(provider.messages) == {"a": 8000, "b": 4400, "c": 4000}[name] - buffer.status()[name].pruned
            assert buffer.status()[name].pruned >= pruned
            assert buffer.status()[name].balanced


def test_threads_that_write_to_all_lanes_never_pass_the_limit(tmp_path: Path) -> None:
    providers = {name: FakeProvider() for name in "abcd"}
    for provider in providers.values():
        provider.down()
    with RoutedBuffer(tmp_path / "b", lanes=lanes(**providers), **FAST | TIGHT) as buffer:

        def write(name: str) -> None:
            for number in range(3000):
                buffer.write(name, padded(number, 500))

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            most = max(most, sum(map(size_of, (tmp_path / "b").glob("?/*.seg"))))
        # A file that is just being removed may be seen beside the one that takes its place.
        assert most <= (1024 + 64) * KiB
        assert all(status.accepted == 3000 and status.balanced for status in buffer.status().values())
        assert all(status.pruned > 1000 for status in buffer.status().values())


@pytest.mark.parametrize("policy", ["reject", "block"])
def test_a_lane_that_must_not_prune_is_not_made_to(tmp_path: Path, policy: str) -> None:
    keeps, prunes = FakeProvider(), FakeProvider()
    keeps.down()
    prunes.down()
    given = lanes(keeps=keeps, prunes=prunes)
    given["keeps"] |= {"on_full": policy, "total_size": "512KiB", "block_timeout": 0.05}
    with RoutedBuffer(tmp_path / "b", lanes=given, **FAST | TIGHT) as buffer:
        for number in range(700):
            buffer.write("keeps", padded(number, 500))
        for number in range(4000):
            buffer.write("prunes", padded(number, 500))
        assert buffer.status()["keeps"].pruned == 0
        assert buffer.status()["prunes"].pruned > 1000
        keeps.up()
        buffer.lanes["keeps"].flush(60)
        assert numbers(keeps.messages) == list(range(700))


@pytest.mark.parametrize("mode", ["always", "buffer"])
@pytest.mark.parametrize("policy", ["reject", "block"])
def test_a_lane_that_never_prunes_leaves_the_others_their_parts(tmp_path: Path, policy: str, mode: str) -> None:
    providers = {name: FakeProvider() for name in ("keeps", "works", "waits")}
    providers["keeps"].down()
    providers["waits"].down()
    given = lanes(**providers)
    given["keeps"] |= {"on_full": policy, "block_timeout": 0.05}
    with RoutedBuffer(tmp_path / "b", lanes=given, mode=mode, **FAST | TIGHT) as buffer:
        eventually(lambda: buffer.status()["keeps"].state == "buffering", "the outage")

        def full() -> bool:
            """Whether it refuses, and goes on doing so: one write may come before the next segment is ready."""
            with pytest.raises(BufferFull, match="leaves the others their parts"):
                for _ in range(2000):
                    buffer.write("keeps", padded(buffer.status()["keeps"].accepted, 500))
            return buffer.status()["keeps"].state == "blocked" and held(buffer)["keeps"] > part - 2 * 64 * KiB

        part = 1024 * KiB // 3
        eventually(full, "the lane's limit")
        assert held(buffer)["keeps"] <= part
        assert buffer.lanes["keeps"].pressure == 1.0
        monitor = Monitor(tmp_path / "b")
        told: Callable[[], int | None] = lambda: next(  # noqa: E731
            lane.total_size for lane in monitor.look().lanes if lane.name == "keeps"
        )
        eventually(lambda: told() == part + 1, "the limit in its files")
        monitor.close()
        # A broker that is up takes ever so much, and one that is away has room for the lane's equal part.
        for other in range(1000):
            buffer.write("works", padded(other, 500))
            if other % 100 == 0:
                buffer.lanes["works"].flush(60)
            if other < 400:
                buffer.write("waits", padded(other, 500))
        number = buffer.status()["keeps"].accepted
        assert {name: status.pruned for name, status in buffer.status().items()} == dict.fromkeys(given, 0)
        providers["keeps"].up()
        providers["waits"].up()
        buffer.flush(60)
        assert [len(numbers(provider.messages)) for provider in providers.values()] == [number, 1000, 400]


def test_a_lane_that_finds_no_room_says_who_has_it(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", lane="keeps", total_size="4MiB", segment_size="64KiB", **FAST) as filled:
        for number in range(4000):
            filled.write("keeps", padded(number, 500))
    keeps, prunes = FakeProvider(), FakeProvider()
    keeps.down()
    given = lanes(keeps=keeps, prunes=prunes)
    given["keeps"] |= {"on_full": "reject"}
    # With shrink, what is there counts from the start, and this lane removes none of it.
    with RoutedBuffer(tmp_path / "b", lanes=given, shrink=True, mode="always", **FAST | TIGHT) as buffer:
        with pytest.raises(BufferFull, match=r"lane keeps holds \d+ bytes and never prunes; let it deliver, purge it"):
            buffer.write("prunes", b"x")
        assert buffer.status()["prunes"].state == "blocked"
        keeps.up()
        buffer.lanes["keeps"].flush(60)
        eventually(lambda: buffer.status()["prunes"].state != "blocked", "room")
        buffer.write("prunes", b"x")
        buffer.flush(60)
        assert len(prunes.messages) == 1


def test_a_backlog_that_is_there_is_kept(tmp_path: Path) -> None:
    with MessageBuffer(tmp_path / "b", lane="a", total_size="4MiB", segment_size="64KiB", **FAST) as filled:
        for number in range(6000):
            filled.write("a", padded(number, 500))
    provider = FakeProvider()
    with RoutedBuffer(tmp_path / "b", lanes=lanes(a=provider), **FAST | TIGHT) as buffer:
        buffer.flush(60)
        assert numbers(provider.messages) == list(range(6000))


def test_opening_is_all_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnknownProvider):
        RoutedBuffer(tmp_path / "b", lanes=lanes(a="fake:", b="nonsense:"), **FAST)
    with pytest.raises(ConfigurationError, match="the provider is an object, and serves the lanes a, main"):
        RoutedBuffer(tmp_path / "b", FakeProvider(), lanes={"a": {"topics": "a"}}, **FAST)
    assert not (tmp_path / "b").exists()
    with MessageBuffer(tmp_path / "b", lane="b", **FAST) as holder:
        with pytest.raises(BufferLocked):
            RoutedBuffer(tmp_path / "b", lanes=lanes(a="fake:", b="fake:"), share=False, lock_timeout=0, **FAST)
        assert holder.write("t", "x") == 1
    # Nothing of the lane that was opened is held.
    with RoutedBuffer(tmp_path / "b", lanes=lanes(a="fake:", b="fake:"), share=False, **FAST):
        pass
    with pytest.raises(ConfigurationError, match="RoutedBuffer takes the same arguments"):
        MessageBuffer(tmp_path / "b", lanes={"a": {"topics": "a"}}, **FAST)


def test_what_no_lane_can_keep_comes_back_together(tmp_path: Path) -> None:
    a, b = FakeProvider(), FakeProvider()
    buffer = RoutedBuffer(tmp_path / "b", lanes=lanes(a=a, b=b), mode="raise", **FAST)
    eventually(lambda: all(status.state == "live" for status in buffer.status().values()), "both live")
    a.down()
    b.down()
    buffer.write("a", "1")
    buffer.write("b", "2")
    with pytest.raises(Undelivered) as caught:
        buffer.close(timeout=0.1)
    assert sorted(numbers(caught.value.messages)) == [1, 2]


def test_a_sidecar_sends_each_lane_with_its_provider(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        name: {"topics": name, "provider": f"file:{tmp_path}/{name}.jsonl", "batch_messages": 10} for name in "ab"
    }
    options = {"directory": tmp_path / "b", "provider": f"file:{tmp_path}/main.jsonl", **FAST}
    with MessageBuffer(tmp_path / "b", lane="a", **FAST) as a, MessageBuffer(tmp_path / "b", **FAST) as rest:
        a.write_many("a", ["1"] * 50)
        rest.write_many("c", ["3"] * 20)
    assert Sidecar.from_config(Config.layered(**options, lanes=given)).run(until_empty=True) == 70
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 50
    assert len((tmp_path / "main.jsonl").read_text().splitlines()) == 20
    assert not (tmp_path / "b.jsonl").exists()


def test_a_forked_child_has_lanes_of_its_own(tmp_path: Path) -> None:
    text = """
from mbframework import RoutedBuffer
import warnings
warnings.simplefilter("ignore")
lanes = {name: {"topics": name, "provider": f"file:{sys.argv[1]}/{{lane}}.jsonl"} for name in ("a", "b")}
buffer = RoutedBuffer(sys.argv[1] + "/b", lanes=lanes, total_size="2MiB", **FAST)
buffer.write("a", "1")
child = os.fork()
for topic in ("a", "b"):
    buffer.write(topic, "2" if child else "3")
if child == 0:
    buffer.flush(60)
    print(sorted(lane.lane for lane in buffer.lanes.values()), flush=True)
    os._exit(0)
os.waitpid(child, 0)
buffer.close()
"""
    with program(text, tmp_path) as child:
        assert child.line() == "['a-2', 'b-2']"
        assert child.end() == (0, "", "")
    lines: Callable[[str], int] = lambda name: len((tmp_path / f"{name}.jsonl").read_text().splitlines())  # noqa: E731
    assert [lines(name) for name in ("a", "b", "a-2", "b-2")] == [2, 1, 1, 1]
