"""The provider ``fake``: what arrives, its controls, pace and outages, and the broker that lanes share by name."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import Position
from mbframework.plugins.source import resolve
from mbframework.provider import Context, Provider
from mbframework.testing.outages import Outages
from tests.providers.batches import RUN, context, documented_urls, make_batch, sequences_of
from tests.providers.provider_pages import documented_examples

New = Callable[..., FakeProvider]


@pytest.fixture
def new() -> Iterator[New]:
    """Makes and opens providers; what hangs is let go after the test."""
    made: list[FakeProvider] = []

    def make(broker: FakeBroker | None = None, told: Context | None = None, **options: object) -> FakeProvider:
        provider = FakeProvider(broker, **options)  # type: ignore[arg-type]
        made.append(provider)
        provider.open(told or context())
        return provider

    yield make
    for provider in made:
        provider.release()
        provider.close(1)


def made_from(url: str, lane: str = "main") -> Provider:
    source = resolve(url)
    assert source is not None
    return source.create(context(lane))


def in_thread(call: Callable[[], None]) -> tuple[threading.Thread, list[Exception]]:
    failures: list[Exception] = []

    def run() -> None:
        try:
            call()
        except SendFailed as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_messages_arrive_in_order_and_whole(new: New) -> None:
    provider = new()
    batches = [make_batch(1, 3), make_batch(4, 2)]
    for batch in batches:
        provider.send(batch)
    assert provider.messages == [message for batch in batches for message in batch]
    assert provider.committed() is None


def test_down_refuses_to_open_to_send_and_to_idle_until_up(new: New) -> None:
    provider = new()
    provider.down()
    for call in (lambda: provider.open(context()), lambda: provider.send(make_batch(1, 1)), provider.idle):
        with pytest.raises(SendFailed, match="away"):
            call()
    provider.up()
    provider.idle()
    provider.send(make_batch(1, 1))
    assert sequences_of(provider.messages) == [1]


def test_a_broker_that_goes_away_in_the_middle_keeps_what_arrived(new: New) -> None:
    provider = new(rate=1_000)
    sender, failures = in_thread(lambda: provider.send(make_batch(1, 1_000)))
    arrived = len(provider.wait_for(1, 60))
    provider.down()
    sender.join(60)
    (failure,) = failures
    assert isinstance(failure, SendFailed)
    assert failure.undelivered == range(provider.count, 1_000)
    assert arrived <= provider.count < 1_000
    assert sequences_of(provider.messages) == list(range(1, provider.count + 1))


def test_fail_next_after_k_leaves_a_suffix_undelivered(new: New) -> None:
    provider = new()
    provider.fail_next(after=2)
    provider.fail_next(2)
    for arrived in (2, 0, 0):
        with pytest.raises(SendFailed) as failed:
            provider.send(make_batch(1, 5))
        assert list(failed.value.undelivered or ()) == list(range(arrived, 5))
        assert not failed.value.uncertain
    assert sequences_of(provider.messages) == [1, 2]
    provider.send(make_batch(3, 3))
    assert sequences_of(provider.messages) == [1, 2, 3, 4, 5]
    assert provider.attempts == 4


def test_an_uncertain_failure_arrives_and_does_not_say_so(new: New) -> None:
    provider = new()
    provider.fail_next(uncertain=True)
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 5))
    assert failed.value.uncertain
    assert list(failed.value.undelivered or ()) == list(range(5))
    assert provider.count == 5


def test_a_failure_may_be_any_error(new: New) -> None:
    provider = new()
    provider.fail_next(error=ProviderUnusable("no rights"))
    provider.fail_next(error=ZeroDivisionError())
    with pytest.raises(ProviderUnusable):
        provider.send(make_batch(1, 1))
    with pytest.raises(ZeroDivisionError):
        provider.send(make_batch(1, 1))
    assert provider.count == 0


def test_the_rejected_are_named_and_the_others_arrive(new: New) -> None:
    provider = new()
    provider.reject_when(lambda message: "three" if message.sequence == 3 else message.sequence == 5)
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 6))
    assert failed.value.rejected == {2: "three", 4: "rejected"}
    assert failed.value.undelivered == ()
    assert sequences_of(provider.messages) == [1, 2, 4, 6]


def test_with_its_position_a_batch_arrives_whole_or_not_at_all(new: New) -> None:
    provider = new(keep_position=True, rate=100_000)
    provider.send(make_batch(1, 5))
    assert provider.committed() == Position(6, RUN)
    provider.fail_next(after=2)
    provider.reject_when(lambda message: message.sequence == 7)
    for _ in ("failed", "rejected"):
        with pytest.raises(SendFailed):
            provider.send(make_batch(6, 5))
    assert provider.count == 5
    assert provider.positions == {("b" * 32, "main"): Position(6, RUN)}
    provider.fail_next(uncertain=True)
    with pytest.raises(SendFailed):
        provider.send(make_batch(8, 3))
    assert provider.committed() == Position(11, RUN)
    assert new(provider.broker, context("other")).committed() is None


@pytest.mark.parametrize("slow", [{"latency": 600.0}, {"rate": 0.01}])
def test_waits_end_when_the_buffer_stops(new: New, slow: dict[str, float]) -> None:
    told = context()
    provider = new(told=told, **slow)
    sender, failures = in_thread(lambda: provider.send(make_batch(1, 10)))
    provider.wait_until(lambda: provider.attempts == 1, 10)
    told.stopping.set()
    sender.join(60)
    assert not sender.is_alive()
    assert "the buffer stops" in str(failures[0])
    assert provider.count == 0


def test_a_stuck_send_looks_at_nothing_until_it_is_released(new: New) -> None:
    told = context()
    provider = new(told=told)
    provider.stick()
    sender, failures = in_thread(lambda: provider.send(make_batch(1, 3)))
    provider.wait_until(lambda: provider.stuck == 1, 10)
    told.stopping.set()
    provider.close(0)
    sender.join(0.1)
    assert sender.is_alive()
    assert provider.count == 0
    provider.release()
    assert sequences_of(provider.wait_for(3, 60)) == [1, 2, 3]
    sender.join(60)
    assert failures == []


def test_pace_and_latency_are_kept(new: New, promised: Callable[[float], float]) -> None:
    provider = new(rate=2_000, latency=0.05)
    began = time.monotonic()
    provider.send(make_batch(1, 200))
    provider.send(make_batch(201, 200))
    took = time.monotonic() - began
    assert 0.3 <= took < promised(10)
    provider.set_rate(None)
    provider.set_latency(0)
    began = time.monotonic()
    provider.send(make_batch(401, 10_000))
    assert time.monotonic() - began < promised(4)


def test_memory_is_bounded_by_keep(new: New) -> None:
    provider = new(keep=4)
    for first in (1, 4, 7):
        provider.send(make_batch(first, 3))
    assert sequences_of(provider.messages) == [6, 7, 8, 9]
    assert provider.count == 9


def test_waiting_in_vain_says_what_arrived(new: New) -> None:
    provider = new()
    provider.send(make_batch(1, 2))
    with pytest.raises(TimeoutError, match=r"3 messages .* 2 messages arrived in 1 sends"):
        provider.wait_for(3, 0.01)


def test_lanes_share_a_broker_by_name(new: New) -> None:
    name = f"shared-{uuid.uuid4().hex}"
    store = FakeProvider.store(name)
    store.down()
    one, two = (made_from(f"fake://{name}?keep_position=true&keep=3", lane) for lane in ("one", "two"))
    with pytest.raises(SendFailed):
        one.open(context("one"))
    store.up()
    for lane, provider in (("one", one), ("two", two)):
        provider.open(context(lane))
        provider.send(make_batch(1, 2))
    assert FakeProvider.store(name) is store
    assert (store.count, len(store.messages)) == (4, 3)
    assert set(store.positions) == {("b" * 32, "one"), ("b" * 32, "two")}
    assert one.destination() == f"fake:{name}"
    store.clear()
    assert (store.count, store.positions) == (0, {})


def test_without_a_name_each_lane_has_its_own() -> None:
    one, two = made_from("fake://"), made_from("fake://")
    one.open(context())
    one.send(make_batch(1, 2))
    assert isinstance(one, FakeProvider)
    assert isinstance(two, FakeProvider)
    assert (one.count, two.count) == (2, 0)


def test_rejections_of_a_url() -> None:
    provider = made_from("fake://?reject=9&reject_every=4")
    provider.open(context())
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 10))
    assert failed.value.rejected == {
        3: "every message number 4 is rejected",
        7: "every message number 4 is rejected",
        8: "its value contains '9'",
    }


def test_outages_follow_their_schedule() -> None:
    once = Outages.parse(["5s+10s", "60s+500ms"])
    assert [now for now in (0, 4.9, 5, 14.9, 15, 60.4, 60.5, 1_000) if once.away(now)] == [5, 14.9, 60.4]
    again = Outages.parse(["5s+10s"], 20)
    assert [now for now in (4, 5, 15, 24, 25, 34, 35, 205) if again.away(now)] == [5, 25, 34, 205]


def test_an_outage_counts_from_the_first_open() -> None:
    provider = made_from("fake://?outage=0s+200ms")
    until = time.monotonic() + 0.2
    with pytest.raises(SendFailed, match="away"):
        provider.open(context())
    told = context()
    while True:
        try:
            provider.open(told)
        except SendFailed:
            assert time.monotonic() < until + 60
            told.stopping.wait(0.01)
        else:
            break
    assert time.monotonic() >= until


@pytest.mark.parametrize(
    "url, option",
    [
        ("fake://?outage=5s", "outage"),
        ("fake://?outage=5s%2B10s&outage_every=8s", "outage_every"),
        ("fake://?rate=-1", "rate"),
        ("fake://?lateny=1", "lateny"),
        ("fake://?keep=many", "keep"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        resolve(url)
    assert refused.value.option == option


def test_the_documented_example_works() -> None:
    [example] = documented_examples("fake")
    exec(example, {})


@pytest.mark.parametrize("url", documented_urls("fake", "fake"))
def test_every_documented_url_works(url: str) -> None:
    provider = made_from(url)
    provider.open(context())
    provider.send(make_batch(1, 2))
    assert isinstance(provider, FakeProvider)
    assert sequences_of(provider.messages)[-2:] == [1, 2]
    provider.close(1)
