"""A future says what the accounts say, whatever the way of its message: live, by disk, or never."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, Undelivered
from mbframework.compat import (
    FutureRecordMetadata,
    IllegalStateError,
    KafkaProducer,
    KafkaTimeoutError,
    MessageDead,
    MessageExpired,
    MessageLost,
    MessagePruned,
    MessagePurged,
    MessageReturned,
    NotDelivered,
    OutcomeUnknown,
    RecordMetadata,
    StillBuffered,
    TopicPartition,
)
from mbframework.compat.outcomes import Outcomes
from tests.compat.rig import WAIT_S, fate, fates, producer_at
from tests.engine.rig import FAST, events, eventually, lane_files

#: Small enough that a few hundred messages fill the buffer.
SMALL: dict[str, Any] = {"segment_size": "64KiB", "total_size": "256KiB", "min_free": 0}


@pytest.mark.parametrize("mode", ["buffer", "always", "block"])
def test_delivered_live_and_from_disk_and_again_live(tmp_path: Path, mode: str) -> None:
    broker = FakeBroker()
    with producer_at(tmp_path, broker, mode=mode) as producer:
        first = producer.send("orders", b"one", key=b"k", headers=[("h", b"v")], partition=3, timestamp_ms=1234)
        assert first.get(WAIT_S) == RecordMetadata(
            "orders", 3, TopicPartition("orders", 3), -1, 1234, None, 1, 3, 2, first.sequence
        )
        if mode != "block":
            broker.down()
        waiting = [producer.send("orders", b"%d" % i) for i in range(300)]
        if mode != "block":
            with pytest.raises(KafkaTimeoutError):
                waiting[-1].get(0.05)
            assert not waiting[-1].is_done, "one that waited too long in vain may still be delivered"
            broker.up()
        producer.flush(WAIT_S)
        assert fates(waiting) == {"delivered": 300}
        assert producer.send("orders", b"last").get(WAIT_S).topic == "orders"
    assert broker.messages[0].headers == (("h", b"v"),)
    assert broker.messages[0].timestamp == 1234 * 10**6


def test_dead_says_why(tmp_path: Path) -> None:
    broker = FakeBroker()
    broker.reject_when(lambda message: f"no {message.value!r} today" if message.value in (b"3", b"7") else None)
    with producer_at(tmp_path, broker) as producer:
        futures = [producer.send("orders", b"%d" % i) for i in range(10)]
        producer.flush(WAIT_S)
        assert fates(futures) == {"delivered": 8, "MessageDead": 2}
        with pytest.raises(MessageDead, match=r"no b'7' today.*|mb dead") as caught:
            futures[7].get()
        assert caught.value.reason == "no b'7' today"
        assert (caught.value.topic, caught.value.sequence) == ("orders", futures[7].sequence)
        assert not futures[7].retriable()


def test_pruned(tmp_path: Path) -> None:
    broker = FakeBroker()
    broker.down()
    with producer_at(tmp_path, broker, **SMALL) as producer:
        futures = [producer.send("orders", bytes(1000)) for _ in range(600)]
        broker.up()
        producer.flush(WAIT_S)
        status = producer.buffer.status()
        assert status.pruned
        assert fates(futures) == {"delivered": status.delivered, "MessagePruned": status.pruned}
        with pytest.raises(MessagePruned, match="total_size"):
            futures[0].get()


def test_expired(tmp_path: Path) -> None:
    broker = FakeBroker()
    broker.down()
    with producer_at(tmp_path, broker, mode="always", expire_after=0.1) as producer:
        futures = [producer.send("orders", b"%d" % i) for i in range(5)]
        with pytest.raises(MessageExpired, match="expire_after"):
            futures[-1].get(WAIT_S)
        producer.flush(WAIT_S)
        assert fates(futures) == {"MessageExpired": 5}


@pytest.mark.parametrize("mode", ["buffer", "always"])
def test_purged(tmp_path: Path, mode: str) -> None:
    broker = FakeBroker()
    with producer_at(tmp_path, broker, mode=mode) as producer:
        producer.buffer.pause()
        futures = [producer.send("orders", b"%d" % i) for i in range(5)]
        producer.buffer.purge()
        producer.buffer.resume()
        after = producer.send("orders", b"after")
        producer.flush(WAIT_S)
        assert fates(futures)["MessagePurged"] == producer.buffer.status().purged > 0
        assert fate(after) == "delivered"
        assert isinstance(futures[-1].exception, MessagePurged)


def test_lost_where_a_file_is_gone(tmp_path: Path) -> None:
    broker = FakeBroker()
    # What the sender has in hand when it is paused does not reach as far as the second file.
    few = {"total_size": "4MiB", "batch_messages": 20}
    with producer_at(tmp_path, broker, mode="always", **SMALL | few) as producer:
        producer.buffer.pause()
        futures = [producer.send("orders", bytes(1000)) for _ in range(200)]
        # One that is being sealed gets another name.
        eventually(lambda: len(events(producer.buffer, "seal")) > 2, "some sealed segments")
        Path(producer.buffer.directory, producer.buffer.lane, lane_files(producer.buffer)[1]).unlink()
        producer.buffer.resume()
        producer.flush(WAIT_S)
        lost = producer.buffer.status().lost
        assert lost
        assert fates(futures) == {"delivered": 200 - lost, "MessageLost": lost}
        assert any(isinstance(future.exception, MessageLost) for future in futures)


def test_kept_where_closing_came_first_and_no_futures_after_a_restart(tmp_path: Path) -> None:
    broker = FakeBroker()
    broker.down()
    with producer_at(tmp_path, broker) as producer:
        futures = [producer.send("orders", b"%d" % i) for i in range(5)]
        told: list[BaseException] = []
        futures[4].add_errback(told.append)
        producer.close(timeout=0.05)
    assert fates(futures) == {"StillBuffered": 5}
    assert told == [futures[4].exception]
    assert issubclass(StillBuffered, OutcomeUnknown)
    assert not issubclass(StillBuffered, NotDelivered)
    with pytest.raises(IllegalStateError):
        producer.send("orders", b"late")

    broker.up()
    with producer_at(tmp_path, broker) as again:
        mine = again.send("orders", b"5")
        again.flush(WAIT_S)
        assert fate(mine) == "delivered"
        assert fates(futures) == {"StillBuffered": 5}, "what was told stays told"
    assert [message.value for message in broker.messages] == [b"%d" % i for i in range(6)]


def test_returned_where_the_mode_keeps_nothing(tmp_path: Path) -> None:
    broker = FakeBroker()
    producer = producer_at(tmp_path, broker, mode="block")
    producer.buffer.pause()
    futures = [producer.send("orders", b"%d" % i) for i in range(5)]
    with pytest.raises(Undelivered) as caught:
        producer.close(timeout=0.05)
    assert len(caught.value.messages) == 5
    assert fates(futures) == {"MessageReturned": 5}
    assert isinstance(futures[0].exception, MessageReturned)


def test_every_future_agrees_with_the_accounts_through_trouble_of_all_kinds(tmp_path: Path) -> None:
    """Four writers, a broker in trouble, a buffer too small, a purge: each message is in one account, and its future
    says in which."""
    chance, half = random.Random(7), threading.Barrier(5, timeout=WAIT_S)
    broker = FakeBroker()
    broker.reject_when(lambda message: "unwanted" if int(message.value or b"0") % 37 == 0 else None)
    futures: list[tuple[int, FutureRecordMetadata]] = []
    told: list[object] = []
    with producer_at(tmp_path, broker, batch_messages=50, **SMALL) as producer:

        def write(start: int) -> None:
            for number in range(start, start + 1500):
                future = producer.send("orders", b"%d" % number, headers=[("pad", bytes(400))])
                futures.append((number, future.add_both(told.append)))
                if number == start + 750:
                    half.wait()

        threads = [threading.Thread(target=write, args=(10_000 * i,)) for i in range(1, 5)]
        for thread in threads:
            thread.start()
        while half.n_waiting < 4:
            (broker.down if chance.random() < 0.5 else broker.up)()
            broker.fail_next(after=chance.randrange(20))
            threads[0].join(0.02)
        broker.down()
        half.wait()
        eventually(lambda: producer.buffer.status().resident_messages > 100, "a backlog")
        assert producer.buffer.purge()
        for thread in threads:
            thread.join()
        broker.up()
        producer.flush(WAIT_S)
        status = producer.buffer.status()
        assert status.balanced
        counted = {
            "delivered": status.delivered, "MessagePruned": status.pruned, "MessageDead": status.dead,
            "MessagePurged": status.purged,
        }  # fmt: skip
        assert fates(future for _, future in futures) == Counter(counted)
        assert all(counted.values()), f"the trouble was too small: {counted}"
        assert len(futures) == len(told), "each future calls back once"
    arrived = {int(message.value or b"0") for message in broker.messages}
    assert all(number in arrived for number, future in futures if fate(future) == "delivered")
    assert all(number % 37 == 0 for number, future in futures if fate(future) == "MessageDead")


def test_a_message_that_is_delivered_before_its_send_returns(tmp_path: Path) -> None:
    """Two threads, each waiting for its own: none of them waits for ever."""
    with producer_at(tmp_path, FakeBroker()) as producer:

        def ping() -> None:
            for _ in range(300):
                producer.send("orders", b"x").get(WAIT_S)

        threads = [threading.Thread(target=ping) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.metrics()["buffer-metrics"]["delivered"] == 600


def test_an_outcome_that_comes_first_is_found_and_a_forgotten_one_is_unknown() -> None:
    outcomes = Outcomes(10)
    promised = RecordMetadata("t", -1, TopicPartition("t", -1), -1, 0, None, -1, 1, -1)
    outcomes.settled(1, 5, "delivered", "")
    outcomes.settled(5, 9, "delivered", "")
    early = FutureRecordMetadata(promised)
    outcomes.follow(7, early)
    assert early.get(0).sequence == 7
    for i in range(5000):
        outcomes.settled(10 + 2 * i, 11 + 2 * i, "dead", f"{i}")
    late = FutureRecordMetadata(promised)
    outcomes.follow(8, late)
    assert fate(late) == "OutcomeUnknown"
    outcomes.closed()
    assert outcomes.join(WAIT_S)


def test_what_nobody_holds_costs_nothing_and_what_has_a_callback_is_held(tmp_path: Path) -> None:
    broker = FakeBroker()
    told: list[RecordMetadata] = []
    with producer_at(tmp_path, broker) as producer:
        producer.buffer.pause()
        for i in range(100):
            producer.send("orders", b"%d" % i)
        gc.collect()
        assert producer.metrics()["buffer-metrics"]["futures"] == 0
        held = weakref.ref(producer.send("orders", b"held").add_callback(told.append))
        gc.collect()
        assert held() is not None
        producer.buffer.resume()
        producer.flush(WAIT_S)
        assert [metadata.serialized_value_size for metadata in told] == [4]
        gc.collect()
        assert held() is None
    assert broker.count == 101


def test_beyond_the_limit_a_message_is_accepted_and_not_followed(tmp_path: Path) -> None:
    broker = FakeBroker()
    with producer_at(tmp_path, broker, max_futures=3) as producer:
        producer.buffer.pause()
        futures = [producer.send("orders", b"%d" % i) for i in range(5)]
        assert fates(futures) == {"pending": 3, "OutcomeUnknown": 2}
        with pytest.raises(OutcomeUnknown, match="max_futures"):
            futures[4].get()
        producer.buffer.resume()
        producer.flush(WAIT_S)
        assert fates(futures) == {"delivered": 3, "OutcomeUnknown": 2}
        assert producer.send("orders", b"5").get(WAIT_S)
    assert broker.count == 6


def test_a_callback_that_raises_or_sends_or_is_slow_harms_nobody(tmp_path: Path) -> None:
    broker = FakeBroker()
    free = threading.Event()
    order: list[str] = []
    with producer_at(tmp_path, broker) as producer:

        def answer(_: object) -> None:
            order.append("sent")
            producer.send("answers", b"again").add_callback(lambda _: order.append("answered"))

        def slow(_: object) -> None:
            assert free.wait(WAIT_S)

        producer.send("orders", b"1").add_callback(lambda _: 1 / 0).add_callback(answer)
        eventually(lambda: order == ["sent", "answered"], "the answer's callback")
        producer.send("orders", b"2").add_callback(slow)
        producer.buffer.flush(WAIT_S)
        with pytest.raises(KafkaTimeoutError, match="callback"):
            producer.flush(0.05)
        begun = producer.send("orders", b"3")
        producer.buffer.flush(WAIT_S)
        assert broker.count == 4, "the sender does not wait for callbacks"
        free.set()
        assert begun.get(WAIT_S)


def test_a_buffer_that_was_passed_in_stays_open_and_is_shared(tmp_path: Path) -> None:
    broker = FakeBroker()
    with MessageBuffer(tmp_path / "outbox", FakeProvider(broker), **FAST) as buffer:
        one, other = KafkaProducer(buffer=buffer), KafkaProducer(buffer=buffer)
        buffer.pause()
        buffer.write("orders", b"plain")
        futures = [one.send("orders", b"1"), other.send("orders", b"2")]
        one.close(timeout=0.01)
        buffer.resume()
        assert other.send("orders", b"3").get(WAIT_S)
        assert fates(futures) == {"StillBuffered": 1, "delivered": 1}
        # The owner closes it under the other's hands.
        buffer.pause()
        late = other.send("orders", b"4")
        buffer.close(timeout=0)
        with pytest.raises(StillBuffered):
            late.get(WAIT_S)
        with pytest.raises(IllegalStateError):
            other.send("orders", b"5")
        other.close()


async def in_a_task(producer: KafkaProducer) -> RecordMetadata:
    return await producer.send("orders", b"awaited")


def test_a_future_can_be_awaited(tmp_path: Path) -> None:
    import asyncio

    with producer_at(tmp_path, FakeBroker()) as producer:
        assert asyncio.run(in_a_task(producer)).topic == "orders"


def test_a_forked_child_sends_by_a_lane_and_futures_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "arrived.jsonl"
    producer = KafkaProducer(buffer_directory=tmp_path / "outbox", provider=f"file:{target}", **FAST)
    with producer:
        producer.buffer.pause()
        parents = producer.send("orders", b"parent")
        child = os.fork()
        if child == 0:
            # Nothing of pytest's may run in the child.
            status = 1
            try:
                signal.alarm(30)
                unknown = isinstance(parents.add_errback(lambda _: None).exception, OutcomeUnknown)
                producer.buffer.resume()
                mine = producer.send("orders", b"child").get(WAIT_S)
                producer.close()
                status = 0 if unknown and mine.sequence else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        producer.buffer.resume()
        assert parents.get(WAIT_S)
    assert target.read_text().count('"orders"') == 2


def test_a_program_that_ends_without_closing_hears_of_everything(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = f"""
from mbframework.compat import KafkaProducer
producer = KafkaProducer(buffer_directory={str(tmp_path / "outbox")!r}, provider="fake://x?latency=0.2")
for i in range(3):
    producer.send("orders", b"%d" % i).add_callback(lambda metadata: print(metadata.sequence, flush=True))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["1", "2", "3"]
    assert not result.stderr


def test_a_handler_that_sends_in_the_middle_of_a_send(tmp_path: Path) -> None:
    """The handler's future says that nobody knows, where the sequence is not known; nothing hangs, nothing is lost."""
    broker = FakeBroker()
    inside: list[FutureRecordMetadata] = []
    with producer_at(tmp_path, broker, close_timeout=5) as producer:

        def handler(_number: int, _frame: object) -> None:
            inside.append(producer.send("signals", b"x").add_errback(lambda _: None))
            signal.setitimer(signal.ITIMER_REAL, 0.001)

        former = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        try:
            outside = [producer.send("orders", b"%d" % i) for i in range(3000)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        producer.flush(WAIT_S)
        assert fates(outside) == {"delivered": 3000}
        assert inside
        assert set(fates(inside)) <= {"delivered", "OutcomeUnknown"}
    assert Counter(message.topic for message in broker.messages) == {"orders": 3000, "signals": len(inside)}
