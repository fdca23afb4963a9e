"""The provider ``fault`` in front of real providers: which faults come, what arrives, and what is passed on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from mbframework_fake.provider import FakeProvider
from mbframework_fault import Plan
from mbframework_fault.provider import Fault, FaultProvider
from mbframework_file.line import decode
from mbframework_sqlite.provider import SQLiteProvider

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import Batch, Position
from mbframework.plugins.source import resolve
from mbframework.provider import Context, Health, Provider
from tests.providers.batches import RUN, context, documented_urls, make_batch, sequences_of
from tests.providers.provider_pages import documented_examples


def opened(inner: Provider, told: Context | None = None, **plan: object) -> FaultProvider:
    provider = FaultProvider(inner, Plan(**plan))  # type: ignore[arg-type]
    provider.open(told or context())
    return provider


def outcomes(provider: Provider, sends: int) -> list[str]:
    """What becomes of batches of ten, of which none is retried."""
    found = []
    for number in range(sends):
        try:
            provider.send(make_batch(1 + 10 * number, 10))
            found.append("delivered")
        except SendFailed as error:
            found.append(f"{error} {sorted(error.rejected)}")
    return found


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "fault, arrive, told, uncertain",
    [("before", 0, range(10), False), ("uncertain", 10, range(10), True)],
)
def test_a_fault_before_or_after_the_send(fault: Fault, arrive: int, told: range, uncertain: bool) -> None:
    inner = FakeProvider()
    provider = opened(inner)
    provider.inject_error(fault, n=2)
    for _ in range(2):
        inner.clear()
        with pytest.raises(SendFailed) as failed:
            provider.send(make_batch(1, 10))
        assert failed.value.undelivered == told
        assert failed.value.uncertain == uncertain
        assert inner.count == arrive
    provider.send(make_batch(11, 1))
    assert provider.counts == {fault: 2}


def test_a_fault_in_the_middle_leaves_a_prefix_and_says_so() -> None:
    inner = FakeProvider(keep_position=True)
    provider = opened(inner, seed=3)
    for number in range(20):
        inner.clear()
        provider.inject_error("partial")
        with pytest.raises(SendFailed) as failed:
            provider.send(make_batch(1, 10))
        assert failed.value.undelivered == range(inner.count, 10), number
        assert sequences_of(inner.messages) == list(range(1, inner.count + 1))
        # What an exactly-once provider would tell after a kill at this point.
        assert provider.committed() == (Position(inner.count + 1, RUN) if inner.count else None)


def test_a_failure_of_the_provider_behind_counts_what_was_held_back() -> None:
    inner = FakeProvider()
    provider = opened(inner, seed=1)
    inner.reject_when(lambda message: message.sequence == 1)
    provider.inject_error("partial")
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 10))
    assert failed.value.rejected == {0: "rejected"}
    assert failed.value.undelivered == list(range(inner.count + 1, 10))
    inner.reject_when(None)
    inner.fail_next(after=0)
    provider.inject_error("partial")
    with pytest.raises(SendFailed) as failed:
        provider.send(make_batch(1, 10))
    assert failed.value.undelivered == list(range(10))


def test_an_injected_error_may_be_any() -> None:
    provider = opened(FakeProvider())
    provider.inject_error(error=ProviderUnusable("no rights"))
    with pytest.raises(ProviderUnusable, match="no rights"):
        provider.send(make_batch(1, 1))


def test_the_same_seed_gives_the_same_faults_and_each_lane_its_own() -> None:
    plan = {"error_rate": 0.2, "partial_rate": 0.2, "uncertain_rate": 0.2, "reject_rate": 0.01}
    one, again, other, lane = (
        outcomes(opened(FakeProvider(), context(name), seed=seed, **plan), 300)
        for name, seed in (("main", 1), ("main", 1), ("main", 2), ("second", 1))
    )
    assert one == again
    assert one != other
    assert one != lane
    for kind in ("before", "partial", "uncertain"):
        assert 30 <= sum(f"injected: {kind}" in outcome for outcome in one) <= 90
    assert 10 <= sum("rejected" in outcome for outcome in one) <= 60


def test_what_is_injected_does_not_shift_the_plan() -> None:
    one, other = (opened(FakeProvider(), seed=1, error_rate=0.3, partial_rate=0.3) for _ in range(2))
    other.inject_error("partial", n=3)
    assert outcomes(one, 50)[3:] == outcomes(other, 50)[3:]


def test_a_rejection_stands_in_a_retry_and_nothing_of_its_batch_is_sent() -> None:
    inner = FakeProvider()
    provider = opened(inner, reject_rate=0.3, seed=1)
    rejected = []
    for _ in range(2):
        with pytest.raises(SendFailed) as failed:
            provider.send(make_batch(1, 10))
        assert failed.value.undelivered is None
        rejected.append(failed.value.rejected)
    assert rejected[0] == rejected[1]
    assert inner.count == 0
    rest = [index for index in range(10) if index not in rejected[0]]
    provider.send(_only(make_batch(1, 10), rest))
    assert sequences_of(inner.messages) == [index + 1 for index in rest]


def _only(batch: Batch, indices: list[int]) -> Batch:
    return Batch(
        **{
            name: [getattr(batch, name)[i] for i in indices]
            for name in Batch.__slots__
            if name not in ("_headers", "position")
        },
        position=batch.position,
    )


def test_down_and_outages_keep_everything_away() -> None:
    inner = FakeProvider()
    provider = opened(inner)
    provider.down()
    for call in (lambda: provider.open(context()), lambda: provider.send(make_batch(1, 1)), provider.idle):
        with pytest.raises(SendFailed, match="out of reach"):
            call()
    assert inner.attempts == 0
    provider.up()
    provider.send(make_batch(1, 1))
    assert inner.count == 1
    with pytest.raises(SendFailed, match="out of reach"):
        FaultProvider(inner, Plan(outage=("0s+60s",))).open(context())


def test_a_delay_ends_when_the_buffer_stops() -> None:
    told = context()
    inner = FakeProvider()
    provider = opened(inner, told)
    provider.set_delay(600)
    told.stopping.set()
    with pytest.raises(SendFailed, match="stops"):
        provider.send(make_batch(1, 1))
    assert inner.attempts == 0


@pytest.mark.parametrize("how", ["stick", "inject"])
def test_a_stuck_send_looks_at_nothing_until_it_is_released(how: str) -> None:
    told = context()
    inner = FakeProvider()
    provider = opened(inner, told, stuck=600.0)
    if how == "stick":
        provider.stick()
    else:
        provider.inject_error("stuck")
    sender = in_thread(lambda: provider.send(make_batch(1, 3)))
    assert provider.hanging.wait(60)
    told.stopping.set()
    assert sender.is_alive()
    assert inner.count == 0
    provider.release()
    sender.join(60)
    assert inner.count == 3
    assert not provider.hanging.is_set()


def test_a_stuck_send_of_the_plan_goes_on_by_itself() -> None:
    inner = FakeProvider()
    provider = opened(inner, stuck_rate=1.0, stuck=0.01)
    provider.send(make_batch(1, 3))
    assert inner.count == 3
    assert provider.counts == {"stuck": 1}


class Told(Provider):
    """A provider that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def open(self, context: Context) -> None:
        self.calls.append("open")
        self.max_message_bytes = 77

    def send(self, batch: Batch) -> None:
        self.max_message_bytes = 55
        raise SendFailed("too large")

    def idle(self) -> None:
        self.calls.append("idle")

    def committed(self) -> Position:
        return Position(5, RUN)

    def destination(self) -> str:
        return "there"

    def describe(self) -> dict[str, str]:
        return {"version": "1"}

    def check(self) -> Health:
        return Health(True, "well")

    def close(self, timeout: float) -> None:
        self.calls.append(f"close {timeout}")


def test_everything_else_is_passed_on() -> None:
    inner = Told()
    provider = opened(inner)
    assert provider.max_message_bytes == 77
    with pytest.raises(SendFailed, match="too large"):
        provider.send(make_batch(1, 1))
    assert provider.max_message_bytes == 55
    provider.idle()
    provider.close(2.5)
    assert inner.calls == ["open", "idle", "close 2.5"]
    assert provider.committed() == Position(5, RUN)
    assert provider.destination() == "there"
    assert provider.describe()["version"] == "1"
    assert provider.check() == Health(True, "well")


def test_retries_through_faults_leave_an_exactly_once_provider_without_gap_or_repeat(tmp_path: Path) -> None:
    inner = SQLiteProvider(tmp_path / "out.db")
    provider = opened(inner, error_rate=0.2, partial_rate=0.2, uncertain_rate=0.2, seed=5)
    at = 1
    while at < 500:
        # As a lane that is killed at each failure: it goes on at the position that the provider kept.
        try:
            provider.send(make_batch(at, 7))
            at += 7
        except SendFailed:
            position = provider.committed()
            at = position.sequence if position else 1
    connection = inner._connection
    assert connection is not None
    found = [row[0] for row in connection.execute("SELECT sequence FROM messages ORDER BY id")]
    provider.close(1)
    assert found == list(range(1, at))
    assert all(provider.counts[kind] > 5 for kind in ("before", "partial", "uncertain"))


def test_a_url_makes_the_provider_behind(tmp_path: Path) -> None:
    inner = f"sqlite://{tmp_path}/out.db?table=outgoing&busy_timeout=1s"
    source = resolve(f"fault://?error_rate=1&seed=1&inner={quote(inner, safe='')}")
    assert source is not None
    provider = source.create(context())
    provider.open(context())
    with pytest.raises(SendFailed, match="injected: before"):
        provider.send(make_batch(1, 1))
    assert provider.describe()["table"] == "outgoing"
    assert provider.destination().startswith("sqlite:")
    provider.close(1)


def test_no_secret_of_the_provider_behind_is_shown() -> None:
    inner = quote("kafka://user:hunter2@127.0.0.1:9", safe="")
    source = resolve(f"fault://?inner={inner}&error_rate=0.5")
    assert source is not None
    provider = source.create(context())
    for text in (source.display, repr(source), repr(provider), str(provider.describe())):
        assert "hunter2" not in text
    assert "kafka://user:***@127.0.0.1:9" in repr(provider)


class Chatty(FakeProvider):
    """A provider whose errors quote what they should not."""

    error: Exception = SendFailed("")

    def send(self, batch: Batch) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [SendFailed("refused for hunter2", undelivered=[1]), OSError(5, "refused for hunter2")]
)
def test_errors_of_the_provider_behind_are_scrubbed(error: Exception) -> None:
    source = resolve("kafka://user:hunter2@127.0.0.1:9")
    assert source is not None
    chatty = Chatty()
    chatty.error = error
    source.create = lambda _: chatty  # type: ignore[method-assign]
    provider = FaultProvider(source)
    provider.open(context())
    with pytest.raises(SendFailed, match=r"refused for \*\*\*") as failed:
        provider.send(make_batch(1, 2))
    assert failed.value.undelivered == ([1] if isinstance(error, SendFailed) else None)


def test_in_front_of_a_file(tmp_path: Path) -> None:
    source = resolve(f"fault://?inner=file://{tmp_path}/out.jsonl")
    assert source is not None
    provider = source.create(context())
    provider.open(context())
    provider.send(make_batch(1, 2))
    provider.close(1)
    assert [decode(line).sequence for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(
    "url, said",
    [
        ("fault://", "inner"),
        ("fault://?inner=nosuch://", "nosuch"),
        ("fault://?inner=fake://?rte=5", "rte"),
        ("fault://?inner=fake://&error_rate=2", "error_rate"),
        ("fault://?inner=fake://&error_rate=0.6&stuck_rate=0.6", "together"),
        ("fault://?inner=fake://&outage=often", "outage"),
    ],
)
def test_a_wrong_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        resolve(url)


def test_the_documented_example_works() -> None:
    [example] = documented_examples("fault")
    exec(example, {})


@pytest.mark.parametrize("url", documented_urls("fault", "fault"))
def test_every_documented_url_can_be_made(url: str, tmp_path: Path) -> None:
    source = resolve(url)
    assert source is not None
    assert isinstance(source.create(context()), FaultProvider)
