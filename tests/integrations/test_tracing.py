"""Trace context travels in the headers, over disk and a provider that keeps headers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, MessageError
from tests.engine.rig import FAST

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk; run: pip install opentelemetry-sdk")

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mbframework.tracing import trace_of, with_trace


def test_a_consumer_s_span_belongs_to_the_trace_of_the_write(tmp_path: Path) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("test")
    broker = FakeBroker()
    broker.down()
    # The buffer is closed before the message has left, and opened again without the span.
    with MessageBuffer(tmp_path / "outbox", FakeProvider(broker), **FAST) as buffer:
        with tracer.start_as_current_span("accept", kind=trace.SpanKind.PRODUCER):
            buffer.write("orders", b"x", headers=with_trace([("own", b"1"), ("own", b"2")]))
        buffer.close(timeout=0)
    broker.up()
    with MessageBuffer(tmp_path / "outbox", FakeProvider(broker), **FAST) as buffer:
        buffer.flush(60)
    (message,) = broker.messages
    assert [value for name, value in message.headers if name == "own"] == [b"1", b"2"]
    with tracer.start_as_current_span("handle", context=trace_of(message.headers), kind=trace.SpanKind.CONSUMER):
        pass
    accept, handle = spans.get_finished_spans()
    assert handle.parent is not None
    assert handle.parent.span_id == accept.context.span_id
    assert handle.context.trace_id == accept.context.trace_id


def test_baggage_and_a_context_that_is_given() -> None:
    context = baggage.set_baggage("tenant", "blue")
    headers = with_trace(context=context)
    assert headers == [("baggage", b"tenant=blue")]
    assert baggage.get_baggage("tenant", trace_of([("Baggage", b"tenant=blue")])) == "blue"


def test_without_a_span_headers_stay_and_an_earlier_hop_is_replaced() -> None:
    assert with_trace() == []
    assert with_trace({"a": "b"}) == [("a", "b")]
    with trace.use_span(
        trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1)))
    ):
        headers = with_trace([("Traceparent", b"old"), ("a", None)])
    assert headers == [("a", None), ("traceparent", b"00-" + b"1".zfill(32) + b"-" + b"2".zfill(16) + b"-01")]
    with pytest.raises(MessageError, match="pairs"):
        with_trace(["x"])  # type: ignore[list-item]


@given(st.lists(st.tuples(st.text() | st.just("traceparent"), st.none() | st.binary() | st.text())))
def test_what_comes_from_elsewhere_never_raises(headers: list[tuple[str, bytes | str | None]]) -> None:
    trace_of(headers)
