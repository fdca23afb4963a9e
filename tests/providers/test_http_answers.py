"""What the provider ``http`` makes of answers and messages: pure decisions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mbframework_http import HttpOptions, envelope, parcel
from mbframework_http.verdict import Answer, Fate, judge, retry_after

from mbframework.message import Message
from tests.providers.batches import any_messages, batch_of, make_batch

NOW = 1_784_894_400.0  # Fri, 24 Jul 2026 12:00:00 GMT


def fate(status: int, count: int = 1, body: object = None, **more: object) -> Fate:
    return judge(answer(status, body), count, now=NOW, longest=300.0, **more).fate  # type: ignore[arg-type]


def answer(status: int, body: object = None, **headers: str) -> Answer:
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, b"" if body is None else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("fate_of_all", "statuses"),
    [
        (Fate.ARRIVED, (200, 201, 202, 204)),
        (Fate.TOO_LARGE, (413, 414, 431)),
        (Fate.REFUSED, (400, 422)),
        (Fate.AGAIN, (408, 409, 423, 424, 425, 429, 500, 502, 503, 504, 507, 599)),
        (Fate.BLOCKED, (301, 302, 303, 307, 308, 304, 401, 403, 404, 405, 406, 407, 410, 411, 415, 418, 501, 505)),
    ],
)
def test_a_status_decides(fate_of_all: Fate, statuses: tuple[int, ...]) -> None:
    assert {status: fate(status) for status in statuses} == dict.fromkeys(statuses, fate_of_all)


def test_statuses_may_be_told_otherwise() -> None:
    assert fate(409, accept=(409,)) is Fate.ARRIVED
    assert fate(409, reject=(409,)) is Fate.REFUSED
    assert fate(404, reject=(404,)) is Fate.REFUSED


def test_errors_quote_what_the_endpoint_says_and_not_more() -> None:
    said = judge(answer(422, {"error": {"reason": "no\x1b[31m\nprice"}}), 1, now=NOW, longest=9).text
    assert said == r"HTTP 422: no\x1b[31m price"
    page = Answer(502, {"content-type": "text/html"}, b"<h1>oops</h1>")
    assert judge(page, 1, now=NOW, longest=9).text == "HTTP 502"
    long = Answer(500, {"content-type": "text/plain; charset=utf-8"}, b"\xff" * 100_000)
    assert len(judge(long, 1, now=NOW, longest=9).text) < 250
    sent_on = judge(answer(308, location="https://other/x?token=hunter2"), 1, now=NOW, longest=9).text
    assert "https://other/x;" in sent_on
    assert "hunter2" not in sent_on
    assert "mb.results" in judge(answer(207), 3, now=NOW, longest=9).text


@pytest.mark.parametrize(
    ("value", "date", "wait"),
    [
        ("120", "", 120.0),
        (" 0 ", "", 0.0),
        ("Fri, 24 Jul 2026 12:01:30 GMT", "", 90.0),
        ("Friday, 24-Jul-26 12:01:30 GMT", "", 90.0),
        ("Fri Jul 24 12:01:30 2026", "", 90.0),
        ("Fri, 24 Jul 2026 11:00:00 GMT", "", 0.0),
        ("Fri, 24 Jul 2026 12:01:30 GMT", "Fri, 24 Jul 2026 12:01:00 GMT", 30.0),
        ("", "", None),
        ("soon", "", None),
        ("-5", "", None),
        ("1.5", "", None),
        ("٣", "", None),
        ("9" * 400, "", None),
        ("Fri, 99 Jul 2026 12:01:30 GMT", "", None),
    ],
)
def test_retry_after(value: str, date: str, wait: float | None) -> None:
    assert retry_after(value, NOW, date) == wait


@given(st.text(max_size=40))
def test_no_retry_after_is_trouble(value: str) -> None:
    wait = retry_after(value, NOW, value)
    assert wait is None or wait >= 0


def test_a_wait_is_capped_and_only_kept_for_what_is_tried_again() -> None:
    assert judge(answer(429, retry_after="7200"), 1, now=NOW, longest=300).retry_after == 300
    assert judge(answer(503, retry_after="7"), 1, now=NOW, longest=300).retry_after == 7
    assert judge(answer(401, retry_after="7"), 1, now=NOW, longest=300).retry_after is None
    assert not judge(answer(429), 1, now=NOW, longest=300).uncertain
    assert judge(answer(504), 1, now=NOW, longest=300).uncertain


@pytest.mark.parametrize(
    "body",
    [
        {"items": [{"status": 200}, {"status": 400, "error": "bad"}, {"status": 413}, {"status": 429}]},
        {"items": [{"index": {"status": s, "error": {"reason": "bad"}}} for s in (201, 422, 413, 503)]},
        [{"status": 200}, {"status": 400, "message": "bad"}, {"status": 431}, {"status": 500}],
    ],
)
def test_results_of_single_messages(body: object) -> None:
    verdict = judge(answer(200, body), 4, now=NOW, longest=300, results="items")
    assert [one.fate for one in verdict.each] == [Fate.ARRIVED, Fate.REFUSED, Fate.REFUSED, Fate.AGAIN]
    assert "bad" in verdict.each[1].text
    assert judge(answer(207, body), 4, now=NOW, longest=300, results="items").each == verdict.each


@pytest.mark.parametrize(
    "body",
    [None, "text", 5, {}, {"items": None}, {"items": [{"status": 200}]}, {"items": [{"status": True}, {}]}, [[], []]],
)
def test_results_that_are_none(body: object) -> None:
    verdict = judge(answer(200, body), 2, now=NOW, longest=300, results="items")
    assert (verdict.fate, verdict.each) == (Fate.BLOCKED, ())
    assert "mb.results" in verdict.text


# -- messages ------------------------------------------------------------------------------------


@given(any_messages)
def test_any_message_comes_back_as_it_was(messages: list[Message]) -> None:
    for message in messages:
        time = message.accepted if message.timestamp is None else message.timestamp
        expected = envelope.Item(
            message.sequence, message.topic, message.value, message.key, message.headers, time, message.partition
        )
        headers = envelope.headers_of(message)
        assert all(value.isascii() and value.isprintable() and value == value.strip() for _, value in headers)
        assert envelope.from_headers(headers, message.value or b"") == expected
        written = envelope.object_of(message)
        assert b"\n" not in written
        assert envelope.from_object(json.loads(written)) == expected


def test_a_message_as_people_read_it() -> None:
    headers = (("trace", b"4711"), ("näme", None), ("raw", b"\xff"))
    message = Message(17, "orders", b"two apples", b"customer-7", headers, None, 3, 5)
    assert envelope.headers_of(message) == [
        ("Mb-Sequence", "17"),
        ("Mb-Topic", "orders"),
        ("Mb-Timestamp", "5"),
        ("Mb-Key", "customer-7"),
        ("Mb-Partition", "3"),
        ("Mb-Header", "trace=4711"),
        ("Mb-Header", "n%C3%A4me"),
        ("Mb-Header", "raw=%FF"),
    ]
    assert json.loads(envelope.object_of(message)) == {
        "sequence": 17,
        "topic": "orders",
        "key": "customer-7",
        "value": "two apples",
        "headers": [
            {"name": "trace", "value": "4711"},
            {"name": "näme", "value": None},
            {"name": "raw", "value_base64": "/w=="},
        ],
        "timestamp": 5,
        "partition": 3,
    }


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b'{"a":\r\n 1}', b'{"a":   1}'),
        (None, b"null"),
        (b'"\\n"', b'"\\n"'),
        (b"", None),
        (b"{", None),
        (b"NaN", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_values_that_are_json_already(value: bytes | None, line: bytes | None) -> None:
    assert envelope.json_of(value) == line


def test_headers_that_are_forwarded() -> None:
    headers = (("TraceParent", b"00-1"), ("other", b"x"), ("traceparent", b"a\r\nEvil: 1"), ("traceparent", None))
    assert envelope.forwarded(headers, ["traceparent"]) == [("traceparent", "00-1")]


def options(**more: object) -> HttpOptions:
    return HttpOptions(hosts=("h",), **more)  # type: ignore[arg-type]


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=30), st.integers(1, 8), st.integers(1, 200), st.integers(0, 29)
)
def test_what_is_tried_again_is_cut_as_before(sizes: list[int], most: int, size: int, done: int) -> None:
    messages = [Message(n, "t", b"1" * max(1, s), None, (), None, None, 5) for n, s in enumerate(sizes, 1)]
    chosen = options(body="array", items="value", request_messages=most)
    parts = list(parcel.cut(batch_of(messages), chosen, size))
    assert [piece.index for part in parts for piece in part.pieces] == list(range(len(messages)))
    assert all(len(part.pieces) == 1 or (len(part.pieces) <= most and part.size <= size) for part in parts)
    keys = [parcel.key_of(batch_of(messages), part, "b", "main") for part in parts]
    first = parts[min(done, len(parts) - 1)].pieces[0].index
    rest = batch_of(messages[first:])
    again = [parcel.key_of(rest, part, "b", "main") for part in parcel.cut(rest, chosen, size)]
    assert again == keys[-len(again) :]
    assert len(set(keys)) == len(keys)


def test_keys_tell_other_requests_apart() -> None:
    whole = batch_of([make_batch(n, 1)[0] for n in (1, 2, 3, 4)])
    gaps = batch_of([make_batch(n, 1)[0] for n in (1, 2, 4)])
    chosen = options(body="ndjson")
    keys = [parcel.key_of(b, next(parcel.cut(b, chosen, 1 << 20)), "b", "main") for b in (whole, gaps)]
    assert keys == ["b:main:1-4", "b:main:1-4/3"]


def test_where_the_url_names_the_topic_a_request_has_one() -> None:
    messages = [make_batch(n, 1)[0]._replace(topic=topic) for n, topic in enumerate("aabba", 1)]
    chosen = options(body="ndjson", path="/{topic}")
    assert [(part.topic, len(part.pieces)) for part in parcel.cut(batch_of(messages), chosen, 1 << 20)] == [
        ("a", 2),
        ("b", 2),
        ("a", 1),
    ]
