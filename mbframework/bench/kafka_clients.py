"""The ways to bring messages into Kafka that ``mb bench kafka`` compares: through the whole buffer, by other clients.

A way is called with the broker's address, a topic that is there, a load and a folder of its own; it sends everything
and returns the seconds it took until all was acknowledged. The values were made beforehand; connecting, and whatever
else a client does for its first message, is not counted, but for Java's.
Client libraries are imported by what uses them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mbframework import MessageBuffer
from mbframework.bench.worker import MeasurementFailed
from mbframework.testing.kafka_jars import jars, java, obstacle

_MANY = 1000
_KEYS = 10_000
_TIMEOUT_S = 600
_FIRST_S = 60
#: The class of kafka-producer-perf-test.sh, in a jar of its own.
_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
#: The best that was found for each, which ``mb bench baselines`` looks after.
TUNED_CONFLUENT: dict[str, object] = {"linger.ms": 100, "batch.size": 500_000, "enable.idempotence": True}
TUNED_KAFKA: dict[str, Any] = {"batch_size": 262_144, "linger_ms": 20}
TUNED_AIOKAFKA: dict[str, Any] = {"max_batch_size": 262_144, "linger_ms": 0}
TUNED_JAVA = ("batch.size=500000", "linger.ms=100")


@dataclass(frozen=True)
class Load:
    """What is sent: ``rich``: with keys and two headers, over four partitions."""

    values: list[bytes]
    rich: bool = False

    @property
    def partitions(self) -> int:
        """Of the topic."""
        return 4 if self.rich else 1

    def key(self, index: int) -> bytes | None:
        """One of ten thousand keys, or none."""
        return b"key-%05d" % (index % _KEYS) if self.rich else None

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The same for all."""
        return [("content-type", b"application/json"), ("trace", b"0123456789abcdef")] if self.rich else []


def numbered(count: int, size: int) -> list[bytes]:
    """So many different values of at least eight bytes."""
    return [b"%08d" % number + bytes(max(0, size - 8)) for number in range(count)]


#: Bootstrap, topic, load, folder; seconds.
Send = Callable[[str, str, Load, str], float]


def missing_kafka_python() -> str:
    """Why kafka-python cannot be used, which is needed to look what has arrived; "" where it can."""
    return "" if importlib.util.find_spec("kafka") else "kafka-python is missing; run: pip install 'mbframework[kafka]'"


def missing_confluent() -> str:
    """Likewise."""
    there = importlib.util.find_spec("confluent_kafka")
    return "" if there else "confluent-kafka is missing; run: pip install 'mbframework[confluent]'"


def missing_aiokafka() -> str:
    """Likewise."""
    return "" if importlib.util.find_spec("aiokafka") else "aiokafka is missing; run: pip install 'mbframework[bench]'"


def missing_java() -> str:
    """Why the Java client cannot be measured; "" where it can."""
    if reason := obstacle():
        return reason
    there = list(jars().glob("kafka-tools-[0-9]*.jar"))
    return "" if there else f"no jar with {_PERFORMANCE}; set KAFKA_HOME to an Apache Kafka of at most 4.3"


def drain(scheme: str, query: str = "", *, one_by_one: bool = False) -> Send:
    """Through the whole buffer: the backlog is written while it is paused; the time is that from resume() on."""

    def send(bootstrap: str, topic: str, load: Load, folder: str) -> float:
        url = f"{scheme}://{bootstrap}?{query}"
        with MessageBuffer(os.path.join(folder, "buffer"), url, mode="always", catch_up="full") as buffer:
            # Connected, and past what is done once.
            buffer.write(topic, load.values[0])
            buffer.flush(60)
            buffer.pause()
            for value in load.values[1:] if one_by_one else ():
                buffer.write(topic, value)
            for first in () if one_by_one else range(1, len(load.values), _MANY):
                part = load.values[first : first + _MANY]
                keys = [load.key(first + index) for index in range(len(part))] if load.rich else None
                headers = [load.headers] * len(part) if load.rich else None
                buffer.write_many(topic, part, keys=keys, headers=headers)
            begun = time.perf_counter()
            buffer.resume()
            buffer.flush(_TIMEOUT_S)
            return time.perf_counter() - begun

    return send


def kafka_send(**settings: Any) -> Send:
    """``KafkaProducer.send()`` of kafka-python; without settings it is what a program does that reads no further."""

    def send(bootstrap: str, topic: str, load: Load, _: str) -> float:
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=bootstrap, **settings)
        try:
            headers, hand_over = load.headers, producer.send
            hand_over(topic, load.values[0]).get(_FIRST_S)
            begun = time.perf_counter()
            if load.rich:
                for index, value in enumerate(load.values[1:]):
                    hand_over(topic, value, load.key(index), headers)
            else:
                # As bare as it goes: what is passed by name costs.
                for value in load.values[1:]:
                    hand_over(topic, value)
            producer.flush()
            return time.perf_counter() - begun
        finally:
            producer.close()

    return send


def kafka_own_benchmark(bootstrap: str, topic: str, load: Load, _: str) -> float:
    """kafka-python's own: its time contains ``close()``, and the reading of each future."""
    command = [
        *(sys.executable, "-m", "kafka.benchmarks.producer_performance", "--bootstrap-servers", bootstrap),
        *("--topic", topic, "--num-records", str(len(load.values)), "--record-size", str(len(load.values[0]))),
        *("--stats-interval", "3600"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return float(_last(r"Execution time: ([\d.]+)", done.stdout, "kafka.benchmarks.producer_performance"))


def confluent_batch(settings: dict[str, object], *, at_once: int = 10 * _MANY) -> Send:
    """``produce_batch()`` of confluent-kafka, the fastest it has."""

    def send(bootstrap: str, topic: str, load: Load, _: str) -> float:
        producer = _confluent(bootstrap, topic, settings, load.values[0])
        messages = [{"value": value} for value in load.values[1:]]
        begun = time.perf_counter()
        at = 0
        while at < len(messages):
            taken = producer.produce_batch(topic, messages[at : at + at_once])
            at += taken
            producer.poll(0 if taken else 0.01)
        _flush(producer)
        return time.perf_counter() - begun

    return send


def confluent_produce(settings: dict[str, object], *, callback: bool = False, timed: bool = False) -> Send:
    """``produce()`` of confluent-kafka, which takes keys, headers and, where it is ``timed``, timestamps too."""

    def send(bootstrap: str, topic: str, load: Load, _: str) -> float:
        producer = _confluent(bootstrap, topic, settings, load.values[0])
        # What is passed costs, also where it says nothing.
        more: dict[str, Any] = {"headers": load.headers} if load.rich else {}
        more |= {"on_delivery": lambda *_: None} if callback else {}
        more |= {"timestamp": int(time.time() * 1e3)} if timed else {}
        keys = [(load.key(index),) if load.rich else () for index in range(len(load.values) - 1)]
        begun = time.perf_counter()
        for value, key in zip(load.values[1:], keys, strict=True):
            while True:
                try:
                    producer.produce(topic, value, *key, **more)
                    break
                except BufferError:
                    producer.poll(0.01)
        _flush(producer)
        return time.perf_counter() - begun

    return send


def _confluent(bootstrap: str, topic: str, settings: dict[str, object], first: bytes) -> Any:
    """A producer whose first message has arrived."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 1_000_000} | settings)
    producer.produce(topic, first)
    _flush(producer)
    return producer


def _flush(producer: Any) -> None:
    if left := producer.flush(120):
        raise MeasurementFailed(f"{left} messages of confluent-kafka are not delivered after 120 s")


def aiokafka_send(**settings: Any) -> Send:
    """``AIOKafkaProducer.send()``; the futures are waited for at the end."""

    async def work(producer: Any, topic: str, load: Load) -> None:
        headers = load.headers or None
        told = [
            await producer.send(topic, value, key=load.key(index), headers=headers)
            for index, value in enumerate(load.values[1:])
        ]  # fmt: skip
        await asyncio.gather(*told)

    return _aiokafka(work, settings)


def aiokafka_batches(**settings: Any) -> Send:
    """``AIOKafkaProducer.create_batch()`` and ``send_batch()``."""

    async def work(producer: Any, topic: str, load: Load) -> None:
        told, at = [], 1
        while at < len(load.values):
            batch = producer.create_batch()
            append, values = batch.append, load.values
            while at < len(values) and append(key=None, value=values[at], timestamp=None) is not None:
                at += 1
            told.append(await producer.send_batch(batch, topic, partition=0))
        await asyncio.gather(*told)

    return _aiokafka(work, settings)


def _aiokafka(work: Callable[[Any, str, Load], Any], settings: dict[str, Any]) -> Send:
    async def whole(bootstrap: str, topic: str, load: Load) -> float:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **settings)
        await producer.start()
        try:
            await producer.send_and_wait(topic, load.values[0])
            begun = time.perf_counter()
            await work(producer, topic, load)
            await producer.flush()
            return time.perf_counter() - begun
        finally:
            await producer.stop()

    return lambda bootstrap, topic, load, _: asyncio.run(whole(bootstrap, topic, load))


def java_performance(settings: tuple[str, ...]) -> Send:
    """The Java client through the benchmark that Apache Kafka ships."""

    def send(bootstrap: str, topic: str, load: Load, _: str) -> float:
        command = [
            *(java(), "-Xmx512m", "-cp", f"{jars()}/*", _PERFORMANCE, "--topic", topic, "--throughput", "-1"),
            *("--num-records", str(len(load.values)), "--record-size", str(len(load.values[0]))),
            *("--producer-props", f"bootstrap.servers={bootstrap}", *settings),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        # Its own figure: without the start of the virtual machine.
        return len(load.values) / float(_last(r"records sent, ([\d.]+) records/sec", done.stdout, _PERFORMANCE))

    return send


def _last(pattern: str, text: str, program: str) -> str:
    found = re.findall(pattern, text)
    if not found:
        raise MeasurementFailed(f"{program} did not tell how long it took; the end of what it said: {text[-300:]}")
    return str(found[-1])
