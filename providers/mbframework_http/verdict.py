"""What an endpoint's answer means for the messages of its request. Pure functions.

===========================  ====================================================================================
status                       the messages
===========================  ====================================================================================
2xx, ``accept``              are there; with ``results`` each has a status of its own
413, 414, 431                are too large together: in halves; one alone is rejected
400, 422, ``reject``         are not taken: in halves, to find the one; that is rejected
408, 409, 423, 424, 425,     are tried again, after ``Retry-After``
429, 5xx but 501 and 505
all else: 3xx, 401, 403,     wait until a person has acted: the lane is blocked
404, 405, 410, 415, …
===========================  ====================================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from mbframework.printable import shortened

#: Characters of an answer that an error quotes.
_QUOTED = 200
_TOO_LARGE = frozenset({413, 414, 431})
_REFUSED = frozenset({400, 422})
_AGAIN = frozenset({408, 409, 423, 424, 425, 429})
_NEVER = frozenset({501, 505})
#: Where the endpoint says that it did nothing.
_NOTHING_DONE = frozenset({408, 425, 429})
_ADVICE = {
    401: "check user and password, or the token",
    403: "give this account the right to send here",
    404: "check the path of the URL",
    405: "it takes another method; see mb.method",
    406: "see mb.header.Accept",
    407: "the proxy asks for user and password; see mb.proxy",
    410: "the endpoint is gone for good; give another URL",
    411: "the endpoint, or a proxy in front of it, is too old",
    415: "it takes another kind of body; see mb.body and mb.content_type",
}


class Fate(Enum):
    """What becomes of messages."""

    ARRIVED = "arrived"
    TOO_LARGE = "too large"
    REFUSED = "refused"
    AGAIN = "again"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came; ``headers`` with names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means; ``text`` in words. ``each``: the messages' own, in order, where the answer has them."""

    fate: Fate
    text: str = ""
    retry_after: float | None = None
    uncertain: bool = False
    each: tuple[Verdict, ...] = ()


def judge(
    answer: Answer,
    count: int,
    *,
    now: float,
    longest: float,
    accept: Sequence[int] = (),
    reject: Sequence[int] = (),
    results: str | None = None,
) -> Verdict:
    """What the answer to a request with ``count`` messages means.

    :param now: seconds since 1970.
    :param longest: the longest wait in seconds that is granted.
    """
    verdict = _of_status(answer.status, _words(answer), accept, reject)
    if verdict.fate is Fate.ARRIVED and results is not None:
        return _of_each(answer, count, accept, reject, results)
    if answer.status == 207 and results is None:
        return Verdict(
            Fate.BLOCKED,
            "HTTP 207: the answer tells of each message by itself, and mb.results does not name the list in it",
        )
    if 300 <= answer.status < 400 and verdict.fate is Fate.BLOCKED:
        place = shortened(answer.headers.get("location", "nowhere").partition("?")[0], _QUOTED)
        text = (
            f"HTTP {answer.status}: it sends us to {place}; redirects are not followed: give that URL, if it is right"
        )
        return Verdict(Fate.BLOCKED, text)
    if verdict.fate is not Fate.AGAIN:
        return verdict
    wait = retry_after(answer.headers.get("retry-after", ""), now, answer.headers.get("date", ""))
    return Verdict(Fate.AGAIN, verdict.text, None if wait is None else min(wait, longest), verdict.uncertain)


def retry_after(value: str, now: float, date: str = "") -> float | None:
    """The wait in seconds that a ``Retry-After`` asks for, given as seconds or as a date; None: it asks for none.

    ``date`` is the endpoint's own clock, where it told it.
    """
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 16:
        return float(value)
    until = _seconds(value)
    if until is None:
        return None
    clock = _seconds(date)
    return max(0.0, until - (now if clock is None else clock))


def _seconds(date: str) -> float | None:
    try:
        when = parsedate_to_datetime(date)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def clock() -> float:
    """Seconds since 1970."""
    return datetime.now(UTC).timestamp()


def _of_status(status: int, words: str, accept: Sequence[int], reject: Sequence[int]) -> Verdict:
    text = f"HTTP {status}{words}"
    if 200 <= status < 300 or status in accept:
        return Verdict(Fate.ARRIVED)
    if status in reject or status in _REFUSED:
        return Verdict(Fate.REFUSED, text)
    if status in _TOO_LARGE:
        return Verdict(Fate.TOO_LARGE, text)
    if status in _AGAIN or (500 <= status < 600 and status not in _NEVER):
        return Verdict(Fate.AGAIN, text, uncertain=status not in _NOTHING_DONE)
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    return Verdict(Fate.BLOCKED, text + advice)


def _of_each(answer: Answer, count: int, accept: Sequence[int], reject: Sequence[int], results: str) -> Verdict:
    """A status for each message."""
    document = _document(answer.body)
    found = document.get(results) if isinstance(document, dict) else document
    statuses = [_status(each) for each in found] if isinstance(found, list) else []
    if len(statuses) != count or None in statuses:
        # It may have stored them all; they are not known to be there.
        return Verdict(
            Fate.BLOCKED,
            f"HTTP {answer.status}: the answer has no list {results!r} with a status for each of {count} messages; "
            "correct mb.results, or leave it out where the endpoint takes all or nothing",
        )
    each = tuple(
        _of_status(status or 0, _said(said), accept, reject) for status, said in zip(statuses, found or (), strict=True)
    )
    # Alone it cannot be cut in two.
    each = tuple(Verdict(Fate.REFUSED, one.text) if one.fate is Fate.TOO_LARGE else one for one in each)
    worst = next((one for one in each if one.fate in (Fate.AGAIN, Fate.BLOCKED)), Verdict(Fate.ARRIVED))
    return Verdict(worst.fate, worst.text, uncertain=True, each=each)


def _status(each: Any) -> int | None:
    """The status of one result: in it, or in the one object that it holds, as ``{"index": {"status": 201}}``."""
    inner = _inner(each)
    status = inner.get("status") if isinstance(inner, dict) else None
    return status if type(status) is int else None


def _inner(each: Any) -> Any:
    if isinstance(each, dict) and "status" not in each and len(each) == 1:
        return next(iter(each.values()))
    return each


def _said(each: Any) -> str:
    inner = _inner(each)
    return _quoted(_message(inner)) if isinstance(inner, dict) else ""


def _words(answer: Answer) -> str:
    """What the answer says for people, to stand behind its status."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        document = _document(answer.body)
        return _quoted(_message(document) if isinstance(document, dict) else "")
    return _quoted(answer.body.decode(errors="replace") if kind == "text/plain" else "")


def _message(found: Mapping[str, Any]) -> str:
    for name in ("detail", "message", "reason", "error", "title", "description"):
        said = found.get(name)
        if isinstance(said, dict):
            said = _message(said)
        if isinstance(said, str) and said.strip():
            return said
    return ""


def _quoted(said: str) -> str:
    text = " ".join(said.split())
    return f": {shortened(text, _QUOTED)}" if text else ""


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
