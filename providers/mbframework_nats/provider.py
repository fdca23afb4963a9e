"""The NATS provider.

Promises:

- Ordering domain: the lane. A message is stored directly behind the one before it or not at all (``entry``), so that
  what is stored is always a beginning of the lane without a hole, whatever fails in between.
- ``send()`` returns when the stream has answered for all of it. Many messages are under way at once, and only the last
  of each portion asks for an answer: that it is stored says the same of all before it.
- Exactly once: after each connection the lane's last message in the stream tells how far it came (``stream``), and ids
  let the server drop what is still on its way. What remains is in docs/providers/nats.md.
- Somebody else may write to the stream. Where one came in between, all behind it is sent again, in smaller portions.
- After a lost connection the next ``send()`` makes a new one, to the first of the hosts that answers.

Threads: the sender's, on which nats-py's event loop runs (``link``). ``close()`` from another while ``send()`` runs
makes it fail soon after, and it closes. Forks: a loop must not be copied, so the lane closes the provider before one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import nats.aio.client
import nats.errors
import nkeys
from nats.js.api import StorageType, StreamInfo
from nats.js.errors import APIError

from mbframework.errors import MessageBufferError, ProviderUnusable, SendFailed
from mbframework.fence import Fence
from mbframework.message import Batch, Position
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.tls import tls_context, tls_fact, warn_unverified
from mbframework.printable import printable
from mbframework.provider import Context, Provider
from mbframework_nats import NatsOptions, stream
from mbframework_nats.delivery import Refused, publish
from mbframework_nats.entry import Identity, Press
from mbframework_nats.faults import (
    NOT_BEHIND,
    OTHER_STREAM,
    TOO_LARGE,
    UNDER_WAY,
    Denied,
    Lost,
    first_hint,
    translate,
)
from mbframework_nats.link import Answer, Link, check_keys, places
from mbframework_nats.pace import Pace

_T = TypeVar("_T")
#: What nats-py and the network raise.
_ERRORS = (OSError, nats.errors.Error, asyncio.TimeoutError, Denied, Lost, nkeys.NkeysError)
#: What an entry takes beyond the message, generously, where headers and key need no encoding.
_OVERHEAD = 1024


class NatsProvider(Provider):
    """Delivers a lane to a stream; see the module.

    :raises ConfigurationError: a certificate or a key cannot be read; nothing was connected.
    """

    fork_safe = False

    def __init__(self, options: NatsOptions) -> None:
        check_keys(options)
        self._tls = tls_context(options, "nats") if options.tls else None
        self._options = options
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._identity = Identity("0" * 32, "")
        self._link: Link | None = None
        self._fence = Fence()
        self._pace = Pace()
        #: The sequence in the stream up to which all is known, and where it stood before what is being sent.
        self._seen = self._stood = 0
        #: The position after the last message that was ever sent from here.
        self._reached = 0
        #: Ends the ids of messages that are sent again after a refusal: a cluster remembers refused ids for a while.
        self._round = 0
        self._occupancy = Occupancy(self._drop, "nats", "NATS")
        self._facts: dict[str, str] = {}
        self._destination = ""
        #: The most bytes of a message with its headers.
        self._most = 0

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        self._context = context
        self._identity = Identity(context.buffer_id, context.lane)
        self._occupancy.open()
        with self._occupancy.held():
            self._drop()
            warn_unverified(self._options, "nats", context.logger)
            self._fence.read(None)
            self._seen = self._reached = 0
            link, info = self._connect()
            found = _guarded(link, lambda: self._locate(link, info))
            self._fence.read(found.position)
            self._seen = found.last
            # It is a message's, and messages leave a stream; but one in which none ever was has lost those of before.
            self.position_tells = not found.last
            self._reached = found.position.sequence if found.position else 0
            if info.config.storage == StorageType.MEMORY:
                context.logger.warning(
                    "nats: stream %s is kept in memory: what it acknowledged is gone when its server restarts",
                    self._options.stream,
                )
            self._link = link

    def committed(self) -> Position | None:
        return self._fence.expected

    def destination(self) -> str:
        """The stream, as it was made: one that was removed and made again is another."""
        return self._destination

    def describe(self) -> Mapping[str, str]:
        return self._facts

    def idle(self) -> None:
        """Notice that the server is gone, answer its pings, and mend the connection."""
        with self._occupancy.held():
            link = self._connected(self._reached)
            try:
                link.ping()
            except _ERRORS as error:
                self._drop()
                raise translate(error, link.place) from error

    def close(self, timeout: float) -> None:
        self._occupancy.close(timeout)

    def _connected(self, first: int) -> Link:
        """The connection; a new one looks first how far the lane came, ``first`` being the next to be sent."""
        if self._link is not None:
            return self._link
        link, info = self._connect()
        _guarded(link, lambda: self._meet(self._locate(link, info), first))
        self._link = link
        return link

    def _meet(self, found: stream.Found, first: int) -> None:
        lost = found.last < self._seen
        self._seen = found.last
        if found.position is None and not lost:
            return  # nothing of ours since
        if found.position is not None and found.position.sequence <= self._reached:
            self._fence.attempt(found.position)
        self._fence.meet(found.position, first, self._context.logger, "nats", self._context.went_back)
        self._reached = max(self._reached, found.position.sequence if found.position else 0)

    def _locate(self, link: Link, info: StreamInfo) -> stream.Found:
        # A stream that is shorter than it was has lost something: all of it is looked at again.
        after = self._seen if info.state.last_seq >= self._seen else 0
        return link.run(stream.locate(link, self._identity, info, after, self._options.look_back))

    def _connect(self) -> tuple[Link, StreamInfo]:
        reasons: list[SendFailed] = []
        blocked: ProviderUnusable | None = None
        for place in places(self._options):
            try:
                link = Link(place, self._options, self._tls, self._give_up)
            except ProviderUnusable as error:
                blocked = ProviderUnusable(f"{place}: {error}", provider="nats")
                continue
            except _ERRORS as error:
                told = translate(error, place)
                if isinstance(told, SendFailed):
                    reasons.append(told)
                else:
                    blocked = told
                continue
            return link, _guarded(link, partial(self._look_around, link))
        if blocked is not None:
            raise blocked
        text = "; ".join(map(str, reasons))
        hint = "" if self._facts else first_hint(self._options, text)
        raise SendFailed(f"NATS cannot be reached: {text}{hint}", provider="nats")

    def _look_around(self, link: Link) -> StreamInfo:
        info = link.run(stream.ask(link, self._options))
        self._destination = f"nats:{info.config.name}:{link.run(stream.made(link, self._options.stream))}"
        most = int(link.facts.get("max_payload", 1 << 20))
        if (info.config.max_msg_size or -1) >= 0:
            most = min(most, info.config.max_msg_size or 0)
        self._most = most
        self.max_message_bytes = max(1, most - _OVERHEAD)
        self._facts = {
            "client": f"nats-py {nats.aio.client.__version__}",
            "server": str(link.facts.get("version", "unknown")),
            "stream": stream.facts(info),
            "largest": f"{most} bytes with headers",
            "security": tls_fact(self._options),
        }
        return info

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _give_up(self) -> bool:
        return self._context.stopping.is_set() or self._occupancy.closed.is_set()

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are the last messages; ``uncertain`` where the answer did not come.
        :raises ProviderUnusable: a person must act, or somebody else delivers for this lane.
        """
        if not batch:
            return
        with self._occupancy.held():
            self._connected(batch.sequences[0])
            press = Press(batch, self._identity.mark(), self._options.stream, self._options.prefix)
            if rejected := press.refused(self._most):
                # Nothing is stored: a position behind the rejected ones would let a kill lose them.
                raise SendFailed(
                    f"NATS would not take {len(rejected)} of {len(batch)} messages: {next(iter(rejected.values()))}",
                    rejected=rejected,
                    provider="nats",
                )
            self._send(batch, press)

    def _send(self, batch: Batch, press: Press) -> None:
        while (start := self._fence.start(batch.sequences)) < len(batch):
            link = self._connected(batch.sequences[start])
            start = self._fence.start(batch.sequences)
            before, self._reached = self._reached, max(self._reached, batch.position.sequence)
            suffix = b":%d" % self._round if self._round else b""
            self._stood = self._seen

            async def stored(index: int, answer: Answer, link: Link = link, before: int = before) -> None:
                if answer.duplicate and batch.sequences[index] >= before:
                    await self._recognise(link, batch, index, answer.sequence)
                elif not answer.duplicate and answer.sequence <= self._stood:
                    # A stream counts on and on: this is another one, made again under the same name.
                    self._stood = self._seen = 0
                    self._forgotten(batch.sequences[index])
                self._stored(batch, index, answer.sequence)

            try:
                link.run(publish(link, press, batch, start, self._pace, suffix, stored))
                link.settled()
            except Refused as refused:
                try:
                    self._refused(refused, link, batch, press)
                except _ERRORS as error:
                    raise self._failed(error, link, batch) from error
                except ProviderUnusable:
                    # Whatever a person does about it, the stream is looked at anew.
                    self._drop()
                    raise
            except _ERRORS as error:
                raise self._failed(error, link, batch) from error
            except MessageBufferError:
                self._drop()
                raise

    def _forgotten(self, first: int) -> None:
        """The stream has nothing of what it had, before the message ``first``."""
        self._fence.meet(None, first, self._context.logger, "nats", self._context.went_back)

    def _stored(self, batch: Batch, index: int, sequence: int) -> None:
        last = index == len(batch) - 1
        self._fence.stored(batch.position if last else batch.position._replace(sequence=batch.sequences[index] + 1))
        self._seen = max(self._seen, sequence)

    async def _recognise(self, link: Link, batch: Batch, index: int, sequence: int) -> None:
        """The server has a message with this one's id, which was not sent from here: is it the same one?"""
        if not await stream.same(link, self._options.stream, sequence, batch.values[index] or b""):
            raise ProviderUnusable(
                f"{link.place}: the stream has another message in the place of this lane's {batch.sequences[index]}:"
                " a copy of the buffer's directory seems to be in use; stop one of the two",
                provider="nats",
            )

    def _refused(self, refused: Refused, link: Link, batch: Batch, press: Press) -> None:
        """Go on, or say why not."""
        index, error = refused.index, refused.error
        code = error.err_code if isinstance(error, APIError) else 0
        careful = self._pace.careful
        self._pace.interrupted()
        if not careful:
            if code == NOT_BEHIND:
                # Which one was the first that is not there, nobody said.
                info = link.run(stream.ask(link, self._options))
                self._meet(self._locate(link, info), batch.sequences[self._fence.start(batch.sequences)])
                self._round += 1
            # Any other answer may have overtaken those before it. Each is asked about again, under the same id.
            return
        if code != UNDER_WAY:
            # All before it were answered, and what is behind it cannot be stored any more.
            self._round += 1
            link.settled()
        if code == NOT_BEHIND:
            return
        left = range(index, len(batch))
        if code in TOO_LARGE:
            why = f"the stream does not take it: {printable(str(getattr(error, 'description', error)))}"
            raise SendFailed(
                f"{link.place}: {why}", rejected={index: why}, undelivered=range(index + 1, len(batch)), provider="nats"
            )
        if code == OTHER_STREAM or isinstance(error, nats.errors.NoRespondersError):
            info = link.run(stream.ask(link, self._options))
            if not stream.takes(info, press.subject(index)):
                subjects = ", ".join(info.config.subjects or [])
                raise ProviderUnusable(
                    f"{link.place}: the subject {press.subject(index)!r} is not one of the stream"
                    f" {self._options.stream!r} ({subjects}); add it there (nats stream edit), or correct the prefix",
                    provider="nats",
                )
            # It may have been made anew.
            self._meet(self._locate(link, info), batch.sequences[self._fence.start(batch.sequences)])
            raise SendFailed(f"{link.place}: the stream was not there", undelivered=left, provider="nats")
        told = translate(error, link.place)
        if code == UNDER_WAY:
            self._drop()
        if isinstance(told, SendFailed):
            raise SendFailed(str(told), undelivered=left, uncertain=code == UNDER_WAY, provider="nats")
        raise told

    def _failed(self, error: Exception, link: Link, batch: Batch) -> MessageBufferError:
        """What became of the connection, with something under way."""
        self._drop()
        told = translate(error, link.place)
        if not isinstance(told, SendFailed):
            return told
        left = range(self._fence.start(batch.sequences), len(batch))
        return SendFailed(str(told), undelivered=left, uncertain=True, provider="nats")


def _guarded(link: Link, work: Callable[[], _T]) -> _T:
    """Its result; the connection is closed where it fails."""
    try:
        return work()
    except _ERRORS as error:
        link.close()
        raise translate(error, link.place) from error
    except BaseException:
        link.close()
        raise
