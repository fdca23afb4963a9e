"""The logging handler: it never waits, never raises, never feeds itself, and one record is one line."""

from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import (
    Batch,
    ConfigurationError,
    Context,
    MessageBuffer,
    MessageError,
    Provider,
    RoutedBuffer,
    Undelivered,
)
from mbframework.logging import BufferHandler, JsonFormatter
from tests.engine.rig import FAST, in_state

WAIT_S = 20.0


@contextmanager
def logger_with(handler: logging.Handler, name: str = "shop") -> Iterator[logging.Logger]:
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    former = logger.level
    logger.setLevel(logging.DEBUG)
    # What is logged here is not for the test's report.
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(former)
        logger.propagate = True
        handler.close()


def values(broker: FakeBroker) -> list[str]:
    return [(message.value or b"").decode() for message in broker.messages]


def test_records_arrive_in_order_with_topic_and_key(tmp_path: Path) -> None:
    broker = FakeBroker()
    with MessageBuffer(tmp_path / "outbox", FakeProvider(broker), **FAST) as buffer:
        handler = BufferHandler(buffer, "logs", key="shop")
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        with logger_with(handler) as logger:
            for i in range(5):
                logger.warning("number %d", i)
            logger.error("undecodable \udc80")
        buffer.flush(WAIT_S)
        assert handler.dropped == 0
    assert values(broker) == [*[f"WARNING number {i}" for i in range(5)], r"ERROR undecodable \udc80"]
    assert {(message.topic, message.key) for message in broker.messages} == {("logs", b"shop")}


@pytest.mark.parametrize("mode", ["block", "raise", "buffer", "always"])
def test_trouble_costs_records_and_neither_time_nor_an_exception(tmp_path: Path, mode: Any) -> None:
    broker = FakeBroker()
    broker.down()
    options = FAST | {
        "mode": mode, "on_full": "block", "segment_size": "64KiB", "total_size": "256KiB", "min_free": 0,
        "channel_messages": 100, "close_timeout": 0,
    }  # fmt: skip
    buffer = MessageBuffer(tmp_path / "outbox", FakeProvider(broker), **options)
    handler = BufferHandler(buffer)
    with logger_with(handler) as logger:
        in_state(buffer, "buffering")
        begun = time.monotonic()
        for _ in range(2000):
            logger.error("x" * 500)
        assert time.monotonic() - begun < WAIT_S / 2
        assert handler.dropped > 1000
        assert handler.last_error
        assert handler.dropped + buffer.status().accepted == 2000
        try:
            buffer.close()
        except Undelivered:
            assert mode in ("block", "raise")
        logger.error("after the end")
        assert "closed" in handler.last_error


class Chatty(Provider):
    """Its client logs whatever it does, on the sender's thread and on one of its own."""

    def __init__(self) -> None:
        self.sent = 0

    def open(self, context: Context) -> None:
        logging.getLogger("shop.client").info("connected")

    def send(self, batch: Batch) -> None:
        self.sent += len(batch)
        logging.getLogger("shop.client").info("sending %d", len(batch))
        logging.getLogger("mbframework.provider.chatty").info("sent")
        thread = threading.Thread(target=logging.getLogger("chatter.network").info, args=("acknowledged",))
        thread.start()
        thread.join()


def test_it_does_not_feed_itself(tmp_path: Path) -> None:
    provider = Chatty()
    with MessageBuffer(tmp_path / "outbox", provider, **FAST) as buffer:
        handler = BufferHandler(buffer, exclude="chatter")
        with logger_with(handler, "chatter"), logger_with(handler, "mbframework"), logger_with(handler) as logger:
            logger.info("one")
            buffer.flush(WAIT_S)
            logger.info("two")
            buffer.flush(WAIT_S)
            assert (buffer.status().accepted, provider.sent, handler.dropped) == (2, 2, 0)


def test_the_provider_s_topic_decides_the_lane(tmp_path: Path) -> None:
    brokers = {"logs": FakeBroker(), "main": FakeBroker()}
    lanes = {"logs": {"topics": "logs", "provider": lambda _: FakeProvider(brokers["logs"])}}
    with RoutedBuffer(tmp_path / "outbox", lambda _: FakeProvider(brokers["main"]), lanes=lanes, **FAST) as buffer:
        with logger_with(BufferHandler(buffer, "logs")) as logger:
            logger.info("x")
        buffer.flush(WAIT_S)
    assert (brokers["logs"].count, brokers["main"].count) == (1, 0)


def test_its_name_is_found_before_it_was_imported() -> None:
    """As dictConfig looks it up, which takes attributes before modules: the package has no other ``logging``."""
    program = (
        "import logging.config as c; r = c.BaseConfigurator({}).resolve; import mbframework;"
        "print(r('mbframework.logging.BufferHandler').__module__)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "mbframework.logging"


def test_from_a_configuration(tmp_path: Path) -> None:
    configuration = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "mbframework.logging.JsonFormatter", "static": {"service": "billing"}}},
        "handlers": {
            "outbox": {
                "class": "mbframework.logging.BufferHandler", "formatter": "json", "topic": "logs",
                "buffer": str(tmp_path / "outbox"), "provider": f"file:{tmp_path / 'out.jsonl'}", "close_timeout": "5s",
            }
        },
        "loggers": {"shop.configured": {"handlers": ["outbox"], "level": "INFO"}},
    }  # fmt: skip
    logging.config.dictConfig(configuration)
    logger = logging.getLogger("shop.configured")
    logger.info("hello", extra={"order": 42})
    (handler,) = logger.handlers
    logger.removeHandler(handler)
    handler.close()
    (line,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    content = json.loads(line["value"])
    assert (content["service"], content["message"], content["extra"]) == ("billing", "hello", {"order": 42})


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda buffer: BufferHandler(buffer, ""), MessageError),
        (lambda buffer: BufferHandler(buffer, mode="always"), ConfigurationError),
        (lambda buffer: BufferHandler(buffer, provider="fake:"), ConfigurationError),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, make: Callable[[MessageBuffer], BufferHandler], error: type[Exception]
) -> None:
    with MessageBuffer(tmp_path / "outbox", "fake:") as buffer, pytest.raises(error):
        make(buffer)


class Hostile:
    def __repr__(self) -> str:
        return "hostile\n\x1b[2J"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Hostile),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(message=st.text(st.characters(exclude_categories=())), extra=st.dictionaries(st.text(min_size=1), ANYTHING))
def test_any_record_is_one_line_of_ascii(message: str, extra: dict[str, Any]) -> None:
    taken = vars(logging.makeLogRecord({}))
    extra = {f"x-{name}": value for name, value in extra.items() if f"x-{name}" not in taken}
    record = logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": "%s", "args": (message,)} | extra)
    text = JsonFormatter().format(record)
    assert text.isascii()
    assert text.isprintable()
    line = json.loads(text)
    assert line["message"] == message
    assert set(line.get("extra", {})) == set(extra)


def test_an_exception_and_what_contains_itself() -> None:
    ring: list[object] = []
    ring.append(ring)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        record = logging.LogRecord("shop", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    record.ring = ring
    line = json.loads(JsonFormatter().format(record))
    assert line["exception"].endswith("ValueError: bad\nthing")
    assert line["extra"] == "{'ring': [[...]]}"
    assert line["time"].endswith("Z")


def test_arguments_that_do_not_fit_are_the_program_s_and_raise_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MessageBuffer(tmp_path / "outbox", "fake:", **FAST) as buffer:
        with logger_with(BufferHandler(buffer)) as logger:
            logger.info("%d", "x")
        assert buffer.status().accepted == 0
    assert "--- Logging error ---" in capsys.readouterr().err
