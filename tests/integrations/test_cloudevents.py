"""CloudEvents in headers, as the CloudEvents SDK reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, MessageError
from mbframework.cloudevents import event_headers, event_of
from tests.engine.rig import FAST

kafka = pytest.importorskip("cloudevents.core.bindings.kafka", reason="needs cloudevents; run: pip install cloudevents")


def test_the_sdk_reads_what_was_written(tmp_path: Path) -> None:
    broker = FakeBroker()
    with MessageBuffer(tmp_path / "outbox", FakeProvider(broker), **FAST) as buffer:
        headers = event_headers(
            type="com.example.order.placed", source="/shop", id="A 1", subject="größe €", dataschema="https://s/1",
            time=datetime(2026, 11, 23, 14, 5, 6, 7, timezone(timedelta(hours=1))), datacontenttype="application/json",
            extensions={"tenant": "blue", "priority": 7, "test": True}, headers={"own": b"1"},
        )  # fmt: skip
        buffer.write("orders", b'{"n": 1}', key=b"k", headers=headers)
        buffer.flush(60)
    (message,) = broker.messages
    event = kafka.from_binary_event(
        kafka.KafkaMessage(headers=dict(message.headers), key=message.key, value=message.value)
    )
    expected = {
        "specversion": "1.0", "id": "A 1", "type": "com.example.order.placed", "source": "/shop",
        "subject": "größe €", "dataschema": "https://s/1", "datacontenttype": "application/json",
        "time": datetime(2026, 11, 23, 13, 5, 6, 7, UTC), "tenant": "blue", "priority": "7", "test": "true",
    }  # fmt: skip
    read = event.get_attributes() | {"time": event.get_time().astimezone(UTC)}
    assert {name: read.get(name) for name in expected} == expected
    assert event.get_data() == {"n": 1}
    assert message.headers[0] == ("own", b"1")
    assert event_of(message.headers)["time"] == "2026-11-23T14:05:06.000007+01:00"


def test_an_event_has_an_id_and_a_time() -> None:
    before = datetime.now(UTC)
    one, another = (event_of(event_headers(type="t", source="s")) for _ in range(2))  # type: ignore[arg-type]
    assert one["id"] != another["id"]
    assert before <= datetime.fromisoformat(one["time"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"source": ""}, "source"),
        ({"type": "a\nb"}, "type"),
        ({"id": ""}, "id"),
        ({"time": datetime.fromisoformat("2026-01-01")}, "time zone"),
        ({"extensions": {"Tenant": "x"}}, "Tenant"),
        ({"extensions": {"data": "x"}}, "data"),
        ({"extensions": {"n": 1 << 31}}, "32 bits"),
        ({"extensions": {"n": 1.5}}, "n: 1.5"),
    ],
)
def test_what_is_no_event_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(MessageError, match=said):
        event_headers(**{"type": "t", "source": "s", **wrong})


@given(st.lists(st.tuples(st.text() | st.just("ce_specversion"), st.none() | st.binary() | st.text())))
def test_what_comes_from_elsewhere_never_raises(headers: list[tuple[str, bytes | str | None]]) -> None:
    event_of(headers)
