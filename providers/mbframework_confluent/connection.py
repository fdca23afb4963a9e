"""One producer of confluent-kafka, from the first connection to a certain end.

Promises:

- Every message that was handed over has a known fate once :meth:`Connection.settle` returned: only failures are
  reported, each to the index of its message, and what is not reported when librdkafka holds nothing any more was
  delivered. Where librdkafka cannot be brought to let go of everything, what is not known counts as not acknowledged.
- With idempotence nothing is delivered behind a message that was refused: librdkafka gives up all that it holds instead
  (``enable.gapless.guarantee``), and the connection is ``dead``.

``produce()`` and not ``produce_batch()``: the latter takes neither timestamps nor headers, and is no faster here, since
:func:`map` calls the former without a step of the interpreter in between.

Everything is called by one thread at a time.
"""

# ruff: noqa: SLF001 - so librdkafka's own errors are named
from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import repeat
from operator import floordiv, length_hint
from typing import Any, TypeVar
from weakref import WeakSet

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from mbframework.message import NO_TIMESTAMP, Batch
from mbframework_confluent.listener import Listener
from mbframework_confluent.outcome import Answer, NotAcknowledged, NotWritten, Refused, TooLarge, answer_to
from mbframework_confluent.placement import Partitions

_Item = TypeVar("_Item")

#: Messages that are handed over in one go, during which no other thread runs Python: about a millisecond.
_SLICE = 1_000
#: Seconds between looks at whether to go on waiting. From 0.2 on confluent-kafka waits in portions, and goes on with
#: the next one after an error, whose exception then makes reports get lost.
_LOOK_S = 0.1
#: Seconds until what a dead producer took back is looked for again.
_BACK_S = 0.02
#: Seconds for reports on what was given up.
_PURGE_S = 1.0
#: Seconds that a producer has to go away before it is left to do so alone: it may be looking up a host's name.
_END_S = 1.0
#: How often librdkafka looks whether a topic has more partitions, and its default, milliseconds; -1: never.
_REFRESH = "topic.metadata.refresh.interval.ms"
_REFRESH_MS = 300_000
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)

#: Seconds that may still be waited; 0.0 for none.
Left = Callable[[], float]


#: Those that are not at their end.
_open: WeakSet[Connection] = WeakSet()


def _keep_copies() -> None:
    """In a forked child: never destroy the copy of a producer.

    There is one where a fork came while ``send()`` took long. librdkafka would wait for its threads, which are not
    there, and for locks that they held.
    """
    for connection in _open:
        for client in connection.clients:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


os.register_at_fork(after_in_child=_keep_copies)


class NotKnown(Exception):
    """There is no topic of this name."""


class Connection:
    """A producer; nothing is connected yet.

    :raises confluent_kafka.KafkaException: the settings do not fit together.
    """

    def __init__(self, settings: Mapping[str, Any], logger: logging.Logger, heard: MutableMapping[str, float]) -> None:
        self.heard = Listener(logger, heard)
        self._producer = Producer({**settings, "error_cb": self.heard.error, "logger": self.heard})
        #: What a forked child must not destroy.
        self.clients: list[Producer | Consumer] = [self._producer]
        #: A call of the producer that nobody may wait for any more, and during which it must not be closed.
        self.busy: threading.Thread | None = None
        #: Why a transaction that is broken is so; None where that is not known.
        self.why_broken: Callable[[], Answer | None] = lambda: None
        self._failures: dict[int, tuple[KafkaError, str]] = {}
        self._refused: dict[int, Answer] = {}
        self._fates: list[Callable[..., None]] = []
        self._topics: dict[str, tuple[Partitions, float]] = {}
        refresh_ms = int(settings.get(_REFRESH, _REFRESH_MS))
        #: Seconds after which a topic may have more partitions.
        self._topics_age = refresh_ms / 1000 if refresh_ms > 0 else math.inf
        self._ended = False
        _open.add(self)

    @property
    def producer(self) -> Producer:
        """confluent-kafka's own."""
        return self._producer

    # -- the cluster ---------------------------------------------------------------------------

    def reach(self, left: Left) -> str | None:
        """The id of the cluster; None where it does not tell within the time that is left, refuses us, or is down."""
        while wait := min(_LOOK_S, left()):
            try:
                return self._producer.cluster_id(wait)
            except KafkaException:
                # No answer yet, for reasons that the listener hears of.
                self.serve()
            if self.heard.refusal or self.heard.down:
                break
        return None

    def partitions(self, topic: str, left: Left) -> Partitions | None:
        """The partitions of a topic; None where the cluster does not tell within the time that is left.

        :raises Answer: we may not know, or it is no topic.
        :raises NotKnown: there is no such topic; not yet, where the cluster may be making it.
        """
        if (kept := self._topics.get(topic)) and time.monotonic() < kept[1] + self._topics_age:
            return kept[0]
        while wait := min(_LOOK_S * 5, left()):
            try:
                found = self._producer.list_topics(topic, timeout=wait).topics[topic]
            except KafkaException:
                found = None  # as above
            self.serve()
            if self.heard.refusal:
                return None
            if found is not None:
                return self._judged(topic, found)
        return None

    def _judged(self, topic: str, found: Any) -> Partitions | None:
        error = found.error
        if error is None and found.partitions:
            known = sorted(found.partitions)
            made = Partitions(known, [each for each in known if found.partitions[each].leader >= 0])
            self._topics[topic] = made, time.monotonic()
            return made
        if error is None or error.code() in (
            KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.LEADER_NOT_AVAILABLE
        ):  # fmt: skip
            raise NotKnown(topic)
        raise answer_to(error, topic)

    def forget(self) -> None:
        """Ask for partitions anew: a topic may have grown."""
        self._topics.clear()

    def answers(self, timeout: float) -> bool:
        """Whether a broker answers."""
        try:
            self._producer.list_topics(next(iter(self._topics), None), timeout=timeout)
        except KafkaException:
            return False
        self.heard.down, self.heard.trouble = False, ""
        return True

    def serve(self) -> None:
        """Let librdkafka speak."""
        self._tell(lambda: self._producer.poll(0))

    # -- messages ------------------------------------------------------------------------------

    def hand_over(self, batch: Batch, indices: Sequence[int], partitions: Sequence[int]) -> None:
        """Give the messages at ``indices``, ascending, to librdkafka; ``partitions`` is that of every message."""
        self._failures.clear()
        self._refused.clear()
        fates = self._fates
        fates += [partial(self._report, index) for index in range(len(fates), len(batch))]
        headers = batch.headers if any(batch.header_blocks) else None
        columns = (batch.topics, batch.values, batch.keys, partitions, milliseconds(batch))
        for start in range(0, len(indices), _SLICE):
            chosen = indices[start : start + _SLICE]
            topics, values, keys, places, times = (taken(column, chosen) for column in columns)
            reports = iter(taken(fates, chosen))
            # What is not passed need not be looked at, message by message.
            given = [] if headers is None else [map(list, taken(headers, chosen))]
            calls = map(self._producer.produce, topics, values, keys, places, reports, repeat(None), times, *given)
            # What was refused at once is one step behind what the iterators have gone.
            for error in _errors_of(calls):
                at = start + len(chosen) - length_hint(reports) - 1
                self._refused[indices[at]] = error
                if not isinstance(error, TooLarge):
                    why = NotWritten(f"not sent, because of another message: {error}")
                    self._refused.update(dict.fromkeys(indices[at + 1 :], why))
                    return

    def _report(self, index: int, error: KafkaError, message: Message) -> None:
        self._failures[index] = error, message.topic() or ""

    def settle(self, indices: Sequence[int], left: Left, given_up: Callable[[], Answer]) -> dict[int, Answer]:
        """Wait for the fate of all messages; those of ``indices`` that were not acknowledged, and why.

        When no time is left, or a broker refuses us, the rest is given up for the reason ``given_up``.
        """
        heard = self.heard
        while pending := self._flush(min(_BACK_S if heard.dead else _LOOK_S, left())):
            if heard.refusal or heard.broken or not left():
                break
            if heard.dead:
                # What is under way has its answer; what that answer sends back into the queue would stay there.
                self._producer.purge(in_flight=False)
        # Before the rest is given up, which librdkafka takes for an error of ours.
        missing = heard.refusal or heard.dead or (self._broken() if heard.broken else given_up())
        if isinstance(missing, NotWritten) or missing is heard.refusal:
            # librdkafka does not tell what of it had gone out before, on a connection that a broker then ended.
            missing = NotAcknowledged(str(missing))
        unknown: Sequence[int] = ()
        if pending:
            self._producer.purge()
            until = time.monotonic() + _PURGE_S
            while (pending := self._flush(_LOOK_S)) and time.monotonic() < until:
                pass
            unknown = indices if pending else ()
        errors = dict.fromkeys(unknown, missing)
        for index, (error, topic) in self._failures.items():
            errors[index] = missing if error.code() in _PURGED else answer_to(error, topic)
        errors.update(self._refused)
        return errors

    def _broken(self) -> Answer:
        why = self.why_broken()
        if why is None or isinstance(why, Refused):
            # It is that of one message, and not of those that were under way.
            return NotWritten(f"given up with its transaction: {why}")
        return why

    def _flush(self, timeout: float) -> int:
        """How many messages librdkafka still holds, after ``timeout`` seconds or earlier."""
        return self._tell(lambda: self._producer.flush(timeout))

    def _tell(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except KafkaException as error:
            # Thus confluent-kafka tells that the producer is dead; reports on what it held follow.
            self.heard.dead = self.heard.dead or answer_to(error.args[0])
            return max(1, len(self._producer))

    # -- the end -------------------------------------------------------------------------------

    def end(self, timeout: float = _END_S) -> None:
        """Give up whatever is pending, and close; waits at most ``timeout`` seconds."""
        if self._ended:
            return
        self._ended = True
        _open.discard(self)
        self._producer.purge()
        end(self._producer, timeout, self.busy)


def end(client: Producer | Consumer, timeout: float = _END_S, busy: threading.Thread | None = None) -> None:
    """Close it, once it is no longer ``busy``; waits at most ``timeout`` seconds."""
    # It waits for librdkafka's own threads, however long they take.
    closing = threading.Thread(target=_close, args=(client, busy), name="mb-confluent-close", daemon=True)
    closing.start()
    closing.join(timeout)


def _close(client: Producer | Consumer, busy: threading.Thread | None) -> None:
    if busy is not None:
        busy.join()
    # It aborts what is open, and warns where it cannot. Where warnings are errors, that ends in a SystemError.
    warnings.filterwarnings("ignore", "Producer .* failed during close", RuntimeWarning)
    try:
        client.close()
    except KafkaException:
        # One last report that it is dead.
        client.close()


def _errors_of(calls: Iterator[None]) -> Iterator[Answer]:
    """Make all the calls; the error of each that fails."""
    while True:
        try:
            deque(calls, maxlen=0)
        except KafkaException as error:
            yield answer_to(error.args[0])
        except BufferError as error:
            yield NotWritten(str(error))
        else:
            return


def milliseconds(batch: Batch) -> list[int]:
    """The timestamp of each message, as Kafka wants it. For 0 librdkafka would take the time of sending."""
    times = batch.accepted if batch.timestamps.count(NO_TIMESTAMP) == len(batch) else batch.times()
    return [time_ns or 1 for time_ns in map(floordiv, times, repeat(1_000_000))]


def taken(column: Sequence[_Item], chosen: Sequence[int]) -> Sequence[_Item]:
    """Those of a column's items that are ``chosen``, ascending."""
    if isinstance(chosen, range):
        return column[chosen.start : chosen.stop]
    return list(map(column.__getitem__, chosen))
