"""The HTTP provider.

Promises:

- Ordering domain: the lane. One request is under way at a time; the next one goes out when the endpoint has answered.
- ``send()`` returns when the endpoint has answered for all of it with 2xx. What that is worth is the endpoint's.
- A request that is tried again has the same key as before, also after a restart where it has one message.
- Nothing is rejected but what the endpoint refuses alone, by 400, 413, 414, 422 or 431; refused credentials, a missing
  path and redirects block the lane.

Threads: the sender's. ``close()`` from another while ``send()`` runs makes it fail soon after, and it closes.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping, Sequence

import httpcore

from mbframework.deadline import Deadline
from mbframework.errors import MessageBufferError, ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.options import secret_values
from mbframework.plugins.secret import scrub
from mbframework.plugins.tls import tls_hint, warn_unverified
from mbframework.provider import Context, Health, Provider
from mbframework_http import HttpOptions
from mbframework_http.discretion import discreet
from mbframework_http.endpoint import Endpoint
from mbframework_http.faults import ERRORS, translate
from mbframework_http.parcel import Parcel, body_of, cut, headers_of
from mbframework_http.verdict import Answer, Fate, Verdict, clock, judge

#: Statuses that an endpoint may give to a whole request for the fault of one message.
_PARTED = (Fate.TOO_LARGE, Fate.REFUSED)


class HttpProvider(Provider):
    """Delivers a lane to an HTTP endpoint; see the module.

    :raises ConfigurationError: a certificate, the proxy or the host cannot be used; nothing was connected.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._occupancy = Occupancy(self._drop, "http", "the endpoint")
        self._endpoint = Endpoint(options, self._deadline())
        self._secrets = _secrets(options)
        #: It has answered before.
        self._met = False
        #: Bytes of a body for many messages, at most: less once the endpoint has found one too large.
        self._most_bytes = options.request_bytes

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        """Make a connection to the endpoint, and end it: no request is sent, so that credentials show with the first
        message."""
        self._context = context
        self._occupancy.open()
        self._most_bytes = self._options.request_bytes
        warn_unverified(self._options, "http", context.logger)
        with self._occupancy.held():
            try:
                self._endpoint.reach(self._deadline())
            except ERRORS as error:
                raise self._translated(error) from error

    def describe(self) -> Mapping[str, str]:
        return self._endpoint.facts

    def check(self) -> Health:
        self.open(Context(buffer_id="0" * 32, lane="check", run=b"\0" * 16))
        self.close(5.0)
        return Health(True, "it takes connections; nothing was sent", self.describe())

    def close(self, timeout: float) -> None:
        self._occupancy.close(timeout, least=0.2)

    def _drop(self) -> None:
        self._endpoint.close()

    def _deadline(self) -> Deadline:
        return Deadline(self._options.timeout, self._context.stopping, self._occupancy.closed)

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are the last messages; ``uncertain`` where the answer did not come, or does
            not say.
        :raises ProviderUnusable: a person must act; nothing of the batch was delivered.
        """
        if not batch:
            return
        with self._occupancy.held():
            rejected: dict[int, str] = {}
            todo = deque(cut(batch, self._options, self._most_bytes))
            while todo:
                sent = todo.popleft()
                first = sent.pieces[0].index
                if sent.pieces[0].content is None:
                    rejected[first] = "its value is no JSON, which mb.items=value needs"
                    continue
                self._check_time(batch, first, rejected)
                verdict = self._deliver(batch, sent, rejected)
                if verdict.each:
                    self._settle_each(verdict, sent, batch, rejected)
                elif verdict.fate in _PARTED and len(sent.pieces) > 1:
                    if verdict.fate is Fate.TOO_LARGE:
                        self._most_bytes = max(1, min(self._most_bytes, sent.size // 2))
                    todo.extendleft(reversed(sent.halves()))
                elif verdict.fate in _PARTED:
                    rejected[first] = f"{self._endpoint.place}: {verdict.text}"
                elif verdict.fate is not Fate.ARRIVED:
                    raise self._stopped(verdict, batch, first, rejected)
            if rejected:
                raise SendFailed(
                    f"{len(rejected)} of {len(batch)} messages were refused: {next(iter(rejected.values()))}",
                    undelivered=(),
                    rejected=rejected,
                    provider="http",
                )

    def _deliver(self, batch: Batch, sent: Parcel, rejected: Mapping[int, str]) -> Verdict:
        options, context = self._options, self._context
        headers = headers_of(batch, sent, options, context.buffer_id, context.lane)
        try:
            with discreet(self._secrets):
                answer = self._endpoint.ask(sent.topic, headers, body_of(sent, options), self._deadline())
            self._met = True
        except ERRORS as error:
            told = self._translated(error)
            fate = Fate.AGAIN if isinstance(told, SendFailed) else Fate.BLOCKED
            verdict = Verdict(fate, str(told), uncertain=isinstance(told, SendFailed) and told.uncertain)
            raise self._stopped(verdict, batch, sent.pieces[0].index, rejected, named=True) from error
        return judge(
            self._scrubbed(answer), len(sent.pieces), now=clock(), longest=options.retry_after_max,
            accept=options.accept, reject=options.reject, results=options.results,
        )  # fmt: skip

    def _settle_each(self, verdict: Verdict, sent: Parcel, batch: Batch, rejected: dict[int, str]) -> None:
        """The results of single messages. From the first that is not settled on all are tried again, to keep the
        order."""
        for piece, one in zip(sent.pieces, verdict.each, strict=True):
            if one.fate is Fate.REFUSED:
                rejected[piece.index] = f"{self._endpoint.place}: {one.text}"
            elif one.fate is not Fate.ARRIVED:
                behind = Verdict(one.fate, one.text, uncertain=piece is not sent.pieces[-1])
                raise self._stopped(behind, batch, piece.index, rejected)

    def _check_time(self, batch: Batch, first: int, rejected: Mapping[int, str]) -> None:
        """Many requests take long: the end of the buffer comes between two of them."""
        if self._occupancy.closed.is_set() or self._context.stopping.is_set():
            verdict = Verdict(Fate.AGAIN, "the buffer is closing")
            raise self._stopped(verdict, batch, first, rejected, named=True)

    def _stopped(
        self, verdict: Verdict, batch: Batch, first: int, rejected: Mapping[int, str], *, named: bool = False
    ) -> MessageBufferError:
        """The error by which the messages from ``first`` on stay undelivered."""
        text = verdict.text if named else f"{self._endpoint.place}: {verdict.text}"
        if verdict.fate is Fate.BLOCKED and first == 0 and not rejected:
            return ProviderUnusable(text, provider="http")
        # A part is delivered: the next attempt begins with what blocks, and says so.
        return SendFailed(
            text,
            undelivered=range(first, len(batch)),
            rejected={index: why for index, why in rejected.items() if index < first},
            uncertain=verdict.uncertain,
            retry_after=verdict.retry_after,
            provider="http",
        )

    def _translated(self, error: Exception) -> SendFailed | ProviderUnusable:
        if isinstance(error, httpcore.TimeoutException) and (
            self._occupancy.closed.is_set() or self._context.stopping.is_set()
        ):
            text = f"{self._endpoint.place}: the buffer is closing, and there is no answer yet"
            return SendFailed(text, uncertain=not isinstance(error, httpcore.ConnectTimeout), provider="http")
        # A proxy talks for itself.
        met = self._met or self._endpoint.facts["proxy"] == "yes"
        hint = tls_hint(self._options, str(error), "https", met=met, scheme_alone=True)
        return translate(error, self._endpoint.place, hint)

    def _scrubbed(self, answer: Answer) -> Answer:
        """Some endpoints tell what they were sent, in what errors quote."""
        if 200 <= answer.status < 300 or not self._secrets:
            return answer
        headers = {name: scrub(value, self._secrets) for name, value in answer.headers.items()}
        body = scrub(answer.body.decode(errors="surrogateescape"), self._secrets).encode(errors="surrogateescape")
        return Answer(answer.status, headers, body)


def _secrets(options: HttpOptions) -> Sequence[str]:
    """What nobody may be told, as it stands in requests."""
    found = list(secret_values(options))
    if options.username is not None:
        found.append(base64.b64encode(f"{options.username}:{options.password}".encode()).decode())
    return found
