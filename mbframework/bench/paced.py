"""A process that makes one call per tick and times each (:mod:`mbframework.bench.worker`); after its order it says that
it is ready, and begins with a second line.

``what`` is ``write`` (MessageBuffer.write), ``producer`` (KafkaProducer.send of kafka-python) or ``file`` (one
os.write to a file). The calls follow a schedule that was made before: a call that is late delays none of the later
ones, and how late it began is kept as well. The samples go to a file as four numbers each: how late (ns), how long
(ns), how often the thread waited (for a lock, or for the interpreter), how often the system took its processor away.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

#: Numbers of one sample.
SAMPLE = 4


def main(order: dict[str, Any]) -> None:
    """Obey ``order``: what, target, url, topic, rate (calls per second), seconds, value (bytes), samples (path)."""
    call, finish = {"write": _buffer, "producer": _producer, "file": _file}[order["what"]](order)
    value = bytes(order["value"])
    for _ in range(200):
        call(value)  # imports, first connection, first pages
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    samples = array("q", bytes(8 * SAMPLE * order["rate"] * order["seconds"]))
    before = resource.getrusage(resource.RUSAGE_SELF)
    _run(call, value, 10**9 // order["rate"], samples)
    after = resource.getrusage(resource.RUSAGE_SELF)
    with open(order["samples"], "wb") as file:
        samples.tofile(file)
    facts = {
        "preempted": after.ru_nivcsw - before.ru_nivcsw,
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
    }
    print(json.dumps(facts | finish()), flush=True)
    # What is still undelivered is of no interest here, and closing a producer whose broker is away takes long.
    sys.stdout.flush()
    os._exit(0)


def _run(call: Callable[[bytes], object], value: bytes, period: int, samples: array[int]) -> None:
    clock, sleep, usage, thread = time.perf_counter_ns, time.sleep, resource.getrusage, resource.RUSAGE_THREAD
    due = clock() + period
    for place in range(0, len(samples), SAMPLE):
        while (left := due - clock()) > 0:
            sleep(left / 1e9)
        before = usage(thread)
        begun = clock()
        call(value)
        ended = clock()
        after = usage(thread)
        samples[place] = begun - due
        samples[place + 1] = ended - begun
        samples[place + 2] = after.ru_nvcsw - before.ru_nvcsw
        samples[place + 3] = after.ru_nivcsw - before.ru_nivcsw
        due += period


def _buffer(order: dict[str, Any]) -> tuple[Callable[[bytes], object], Callable[[], dict[str, Any]]]:
    from mbframework import MessageBuffer

    buffer = MessageBuffer(order["target"], order["url"], mode="buffer")
    write, topic = buffer.write, order["topic"]

    def finish() -> dict[str, Any]:
        status = buffer.status()
        names = ("state", "accepted", "delivered", "lost", "resident_messages")
        return {name: getattr(status, name) for name in names}

    return lambda value: write(topic, value), finish


def _producer(order: dict[str, Any]) -> tuple[Callable[[bytes], object], Callable[[], dict[str, Any]]]:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=order["url"].removeprefix("kafka://"))
    send, topic = producer.send, order["topic"]
    return lambda value: send(topic, value), dict


def _file(order: dict[str, Any]) -> tuple[Callable[[bytes], object], Callable[[], dict[str, Any]]]:
    fd = os.open(order["target"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return lambda value: os.write(fd, value), dict


if __name__ == "__main__":
    # Errors are shown, the log is not: outages are the point.
    logging.disable(logging.CRITICAL)
    main(json.loads(sys.stdin.readline()))
