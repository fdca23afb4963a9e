"""The Redis provider.

Promises:

- Exactly once: a part of a batch and the lane's position are stored by one script, which Redis runs as a whole. It
  stores nothing unless the position is the expected one, so that an attempt without an answer is never repeated.
- Ordering domain: a stream; across the streams of a lane, too, entries are added in the batch's order.
- ``send()`` returns when Redis has answered for all of it, and with ``replicas`` when so many replicas have it.
- After a lost connection the next ``send()`` makes a new one, to the first of the hosts that is a primary.

Threads: the sender's. ``close()`` from another while ``send()`` runs makes it fail soon after, and it closes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import redis
from redis import exceptions

from mbframework.errors import MessageBufferError, ProviderUnusable, SendFailed
from mbframework.fence import Fence
from mbframework.message import Batch, Position
from mbframework.plugins.occupancy import Occupancy
from mbframework.plugins.tls import tls_context, tls_fact, tls_hint, warn_unverified
from mbframework.provider import Context, Provider
from mbframework_redis import RedisOptions, entry
from mbframework_redis.faults import translate, word
from mbframework_redis.link import Link, places

#: Messages, and bytes unless one message alone has more, that one call of the script adds: Redis serves nobody else
#: while it runs.
_PART_MESSAGES = 1000
_PART_BYTES = 1 << 20
#: Redis' own default of proto-max-bulk-len, in bytes.
_LARGEST = 512 << 20
#: What an entry takes beyond the message, generously.
_OVERHEAD = 4096


class _Part(NamedTuple):
    """The messages ``start`` to ``stop`` of a batch, and the position after them."""

    start: int
    stop: int
    position: Position


class RedisProvider(Provider):
    """Delivers a lane to Redis; see the module.

    :raises ConfigurationError: a certificate cannot be read; nothing was connected.
    """

    position_tells = True

    def __init__(self, options: RedisOptions) -> None:
        if options.tls:
            tls_context(options, "redis")
        self._options = options
        self._context = Context(buffer_id="0" * 32, lane="", run=b"\0" * 16)
        self._link: Link | None = None
        self._fence = Fence()
        self._occupancy = Occupancy(self._drop, "redis", "Redis")
        self._facts: dict[str, str] = {}
        self._destination = ""
        self._prefix = options.prefix.encode()
        self._limits = entry.limits(options.maxlen, exact=options.maxlen_exact)
        self.max_message_bytes = _LARGEST - _OVERHEAD

    # -- opening and closing -------------------------------------------------------------------

    def open(self, context: Context) -> None:
        self._context = context
        self._occupancy.open()
        with self._occupancy.held():
            self._open(context)

    def _open(self, context: Context) -> None:
        self._drop()
        warn_unverified(self._options, "redis", context.logger)
        link = self._connected()
        try:
            self._look_around(link)
            self._fence.read(self._stored(link))
        except exceptions.RedisError as error:
            self._drop()
            raise translate(error, link.place) from error
        except MessageBufferError:
            self._drop()
            raise

    def committed(self) -> Position | None:
        return self._fence.expected

    def destination(self) -> str:
        """The id of the data, which we keep there; "" where Redis may lose it together with the data."""
        return self._destination

    def describe(self) -> Mapping[str, str]:
        return self._facts

    def idle(self) -> None:
        """Notice that the connection has ended, and mend it; notice that the server has forgotten what it had."""
        with self._occupancy.held():
            if self._link is not None and not self._link.alive():
                self._drop()
            mended = self._link is None
            link = self._connected()
            if mended:
                self._look_again(link)

    def close(self, timeout: float) -> None:
        self._occupancy.close(timeout, interrupt=self._interrupt)

    def _interrupt(self) -> None:
        link = self._link
        if link is not None:
            link.interrupt()

    def _connected(self) -> Link:
        if self._link is not None:
            return self._link
        reasons: list[SendFailed] = []
        blocked: ProviderUnusable | None = None
        for place in places(self._options):
            try:
                link = Link(place, self._options, self._give_up)
                try:
                    _check_primary(link)
                except BaseException:
                    link.close()
                    raise
            except exceptions.RedisError as error:
                told = translate(error, place)
                if isinstance(told, SendFailed):
                    reasons.append(told)
                else:
                    blocked = told
                continue
            self._link = link
            return link
        if blocked is not None:
            raise blocked
        text = "; ".join(map(str, reasons))
        hint = tls_hint(self._options, text, "rediss", met=bool(self._facts))
        raise SendFailed(f"Redis cannot be reached: {text}{hint}", provider="redis")

    def _look_around(self, link: Link) -> None:
        """Facts, limits and the id of the data; what we have no right to ask stays unknown."""
        info = _allowed(link, "INFO") or b""
        found = dict(line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line)
        kept = {"1": "append-only file", "0": "no append-only file", "": "unknown"}[found.get("aof_enabled", "")]
        limit = _allowed(link, "CONFIG", "GET", "proto-max-bulk-len") or [b"", b"%d" % _LARGEST]
        self.max_message_bytes = int(limit[1]) - _OVERHEAD
        self._destination = ""
        if kept == "append-only file":
            key = self._key("id")
            link.ask("SET", key, secrets.token_hex(16), "NX")
            self._destination = f"redis:{link.ask('GET', key).decode(errors='replace')}"
        self._facts = {
            "client": f"redis-py {redis.__version__}",
            "server": f"{found.get('redis_version', 'unknown')}, {kept}",
            "database": str(self._options.database),
            "eviction": found.get("maxmemory_policy", "unknown"),
            "security": tls_fact(self._options),
        }

    def _look_again(self, link: Link) -> None:
        """At our position, on a new connection, while nothing is to be sent: one in front of what was acknowledged is
        none that an attempt of ours could leave there."""
        expected = self._fence.expected
        try:
            found = self._stored(link)
        except exceptions.RedisError as error:
            raise self._failed(error, link, None) from error
        if expected is not None and (found is None or found.sequence < expected.sequence):
            self._meet(found, expected.sequence)

    def _stored(self, link: Link) -> Position | None:
        return _position(link.ask("GET", self._position_key()) or b"", link)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _give_up(self) -> bool:
        return self._context.stopping.is_set() or self._occupancy.closed.is_set()

    def _key(self, name: str) -> bytes:
        return self._prefix + b"mbframework:" + name.encode()

    def _position_key(self) -> bytes:
        return self._key(f"position:{self._context.buffer_id}:{self._context.lane}")

    # -- sending -------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Deliver the batch.

        :raises SendFailed: ``undelivered`` are the last messages; ``uncertain`` where the answer did not come.
        :raises ProviderUnusable: a person must act, or somebody else delivers for this lane.
        """
        if not batch:
            return
        if rejected := self._refused(batch):
            # Nothing is stored: a position behind the rejected ones would let a kill lose them.
            raise SendFailed(
                f"Redis would not take {len(rejected)} of {len(batch)} messages: {next(iter(rejected.values()))}",
                rejected=rejected,
                provider="redis",
            )
        with self._occupancy.held():
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        while (start := self._fence.start(batch.sequences)) < len(batch):
            link = self._connected()
            try:
                found = self._add(link, batch, start)
            except exceptions.RedisError as error:
                raise self._failed(error, link, batch) from error
            if found is not None:
                here = self._fence.start(batch.sequences)
                self._meet(_position(found, link), batch.sequences[here])
        if self._options.replicas:
            self._await_replicas(batch)

    def _meet(self, found: Position | None, first: int) -> None:
        self._fence.meet(found, first, self._context.logger, "redis", self._context.went_back)

    def _add(self, link: Link, batch: Batch, start: int) -> bytes | None:
        """Add what is left of the batch; None, or the position that was found in place of the expected one."""
        keys, marks = self._keys(batch)
        parts = list(_parts(batch, start))
        expected = self._fence.expected
        # All are sent before the first answer is read: each does nothing unless the one before it was stored.
        for part in parts:
            self._fence.attempt(part.position)
            arguments = [entry.encode_position(expected), entry.encode_position(part.position)]
            arguments += [b"%d" % len(self._limits), *self._limits]
            written, count = entry.encode_messages(batch, part.start, part.stop, marks)
            head = [b"EVALSHA", link.sha, b"%d" % len(keys), *keys, *arguments]
            link.write([entry.command(head, written, count)])
            expected = part.position
        failure: exceptions.RedisError | None = None
        other: bytes | None = None
        for part in parts:
            try:
                found = link.answer()
            except exceptions.ResponseError as error:
                failure = failure or error
                continue
            if failure is None and other is None:
                if found == entry.encode_position(part.position):
                    self._fence.stored(part.position)
                else:
                    other = found
        if failure is not None:
            raise failure
        return other

    def _await_replicas(self, batch: Batch) -> None:
        """Return when enough replicas have what is stored, also where an earlier attempt has stored it."""
        link, wanted = self._connected(), self._options.replicas
        try:
            # WAIT waits for what this connection has written, which may be a new one: let it write.
            link.ask("SET", self._key("barrier"), b"1")
            have = link.ask("WAIT", wanted, round(self._options.timeout * 1000), timeout=self._options.timeout + 1)
        except exceptions.RedisError as error:
            raise self._failed(error, link, None) from error
        if have < wanted:
            raise SendFailed(
                f"{link.place}: {have} of {wanted} replicas have the {len(batch)} messages after"
                f" {self._options.timeout:g} s; look after the replicas, or lower the option 'replicas'",
                uncertain=True,
                provider="redis",
            )

    def _failed(self, error: exceptions.RedisError, link: Link, batch: Batch | None) -> MessageBufferError:
        """What went wrong, and from which message of the batch on; with no batch its fate is unknown."""
        told = translate(error, link.place)
        answered = isinstance(error, exceptions.ResponseError)
        # NOSCRIPT: somebody has emptied the cache of scripts; a new connection loads ours again. READONLY: the primary
        # may be another one by now.
        if not answered or word(error) in ("NOSCRIPT", "READONLY", "NOAUTH"):
            self._drop()
        if not isinstance(told, SendFailed):
            return told
        undelivered = None if batch is None else range(self._fence.start(batch.sequences), len(batch))
        return SendFailed(str(told), undelivered=undelivered, uncertain=batch is None or not answered, provider="redis")

    def _keys(self, batch: Batch) -> tuple[list[bytes], dict[str, int]]:
        """The script's keys, and for each topic the index of its stream among them, from 1."""
        topics = list(dict.fromkeys(batch.topics))
        keys = [self._position_key(), *(self._prefix + topic.encode() for topic in topics)]
        return keys, {topic: index for index, topic in enumerate(topics, 2)}

    def _refused(self, batch: Batch) -> dict[int, str]:
        """Messages that Redis cannot hold, and why."""
        most = self.max_message_bytes or _LARGEST
        rejected: dict[int, str] = {}
        for index, (value, key, block) in enumerate(zip(batch.values, batch.keys, batch.header_blocks, strict=True)):
            size = len(value or b"") + len(key or b"") + len(block or b"")
            if size > most:
                rejected[index] = f"it has {size} bytes; this Redis takes {most} (proto-max-bulk-len)"
            elif block and (count := len(batch.headers[index])) > entry.MOST_HEADERS:
                rejected[index] = f"it has {count} headers; a script of Redis takes {entry.MOST_HEADERS}"
        return rejected


def _parts(batch: Batch, start: int) -> Iterator[_Part]:
    """The rest of the batch in portions, each with the position after it."""
    count = len(batch)
    while start < count:
        size, stop = 0, start
        while stop < count and stop - start < _PART_MESSAGES and (size < _PART_BYTES or stop == start):
            size += len(batch.values[stop] or b"") + len(batch.header_blocks[stop] or b"")
            stop += 1
        yield _Part(
            start, stop, batch.position if stop == count else batch.position._replace(sequence=batch.sequences[stop])
        )
        start = stop


def _position(stored: bytes, link: Link) -> Position | None:
    try:
        return entry.decode_position(stored)
    except ValueError as error:
        raise ProviderUnusable(
            f"{link.place}: the key of our position holds something else; delete it, or set another prefix",
            provider="redis",
        ) from error


def _check_primary(link: Link) -> None:
    role = _allowed(link, "ROLE")
    if role and role[0] != b"master":
        raise exceptions.ReadOnlyError("it takes no writes")


def _allowed(link: Link, *command: str) -> Any:
    """The answer, or None where this user may not ask."""
    try:
        return link.ask(*command)
    except exceptions.ResponseError as error:
        if word(error) in ("NOPERM", "ERR"):  # ERR: hosted servers have removed the command
            return None
        raise
