"""One connection to NATS, by nats-py, on an event loop of its own that runs on the caller's thread.

nats-py is asyncio only. The loop runs while a method here runs, and stands still in between: there is no thread to
leave behind, and nothing happens unasked. What the server asks meanwhile (its pings, every two minutes) is answered by
the next call; a provider is called every second. Under gevent, where several links have one thread, they take turns
(``loop``).

- No wait hangs: each ends with what it waits for, the time-out, the end of the buffer, or that of the connection.
- The connection is never mended behind our back: nats-py would send again what it does not know to have arrived.
- A connection that is dropped while something is under way is reset, so that the network delivers nothing of it later.

Threads: one at a time. Nothing here may be used after a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import nats.errors
import nkeys
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError

from mbframework.errors import ConfigurationError, ProviderUnusable
from mbframework.plugins.url import with_port
from mbframework_nats import NatsOptions
from mbframework_nats.faults import Denied, Lost
from mbframework_nats.loop import Loop

_T = TypeVar("_T")
#: Seconds between looks at whether to go on waiting.
_LOOK_S = 0.05
_PORT = 4222
#: Seconds; nats-py would ask the server on its own, but its clock stands still between our calls. See Link.ping().
_NO_PINGS_S = 1_000_000
#: No such time-out in nats-py: ours apply.
LONG_S = 3600


def places(options: NatsOptions) -> list[str]:
    """The hosts with their ports."""
    return [with_port(host, _PORT) for host in options.hosts]


def check_keys(options: NatsOptions) -> None:
    """:raises ConfigurationError: the NKey or the file of credentials cannot be used."""
    if options.nkey is not None:
        try:
            nkeys.from_seed(bytearray(options.nkey.strip().encode())).wipe()
        except (ValueError, nkeys.NkeysError):
            # Without the cause, which may quote it.
            raise ConfigurationError(
                "provider 'nats': option 'nkey': expected the seed of a user's NKey, which begins with SU",
                option="nkey",
            ) from None
    if options.credentials is not None:
        try:
            with open(options.credentials, "rb") as file:
                text = file.read(1 << 16)
        except OSError as error:
            raise _unusable("credentials", options.credentials, str(error.strerror)) from error
        if b"BEGIN NATS USER JWT" not in text or b"BEGIN USER NKEY SEED" not in text:
            raise _unusable("credentials", options.credentials, "expected a JWT and the seed of an NKey in it")


def _unusable(option: str, value: object, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"provider 'nats': option {option!r}: {os.fspath(str(value))!r} cannot be used: {why}", option=option
    )


class Answer(NamedTuple):
    """The stream's answer to a message: its sequence there, and whether it had it before; or why it refused it."""

    sequence: int
    duplicate: bool = False
    error: Exception | None = None


#: Takes what arrived on a subscription: its subject, the subject to answer to, the headers as they are, and the data.
Taker = Callable[[bytes, bytes, bytes, bytes], None]


class _Client(Client):
    """nats-py's client, that speaks TLS if and only if it was told to: before it says who we are."""

    def __init__(self, *, tls: bool) -> None:
        super().__init__()
        self._tls = tls
        self.takers: dict[int, Taker] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        # Where many come a queue, a task and a parser of headers for each are most of the time that it takes.
        if taker := self.takers.get(sid):
            taker(subject, reply, headers or b"", data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers or b"")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            if self._tls and not (info.get("tls_required") or info.get("tls_available")):
                raise ProviderUnusable("the server offers no TLS; enable it there, or leave tls out", provider="nats")
            if not self._tls and info.get("tls_required"):
                raise ProviderUnusable("the server expects TLS; add tls=true", provider="nats")
            info["tls_required"] = self._tls
        # Only the hosts that were given are used.
        info.pop("connect_urls", None)
        await super()._process_info(info, initial_connection)


class Link:
    """A connection that is authenticated.

    :param give_up: says that the buffer is closing.
    :raises Exception: it cannot be made; see :func:`~mbframework_nats.faults.translate`.
    """

    def __init__(
        self, place: str, options: NatsOptions, tls: ssl.SSLContext | None, give_up: Callable[[], bool]
    ) -> None:
        self.place = place
        self._options = options
        self._give_up = give_up
        self._loop = Loop()
        self._client = _Client(tls=tls is not None)
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._asked = 0
        self._first_error: Exception | None = None
        self._trouble: asyncio.Future[None] = self._loop.create_future()
        #: Something was sent whose fate is not known.
        self.in_doubt = False
        try:
            self.run(self._connect(tls))
        except BaseException:
            self.close()
            raise

    async def _connect(self, tls: ssl.SSLContext | None) -> None:
        options = self._options
        deadline = time.monotonic() + options.connect_timeout
        names: dict[str, Any] = {
            "user": options.username,
            "password": options.password,
            "token": options.token,
            "nkeys_seed_str": options.nkey,
            "user_credentials": options.credentials,
        }
        connecting = self._client.connect(
            servers=[f"nats://{self.place}"],
            name=options.client_name,
            error_cb=self._noticed,
            closed_cb=self._ended,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=LONG_S,
            ping_interval=_NO_PINGS_S,
            inbox_prefix=options.inbox_prefix,
            tls=tls,
            tls_handshake_first=options.tls_first,
            **{name: value for name, value in names.items() if value is not None},
        )
        try:
            await self.wait(connecting, deadline)
        except nats.errors.NoServersError:
            # What it was is told to the callback alone.
            raise self._first_error or Lost("it cannot be reached") from None
        self.js: JetStreamContext = self._client.jetstream(domain=options.domain, timeout=LONG_S)
        self._inbox = await self.listen(self._answered, below=".*")

    # -- waiting -------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run it to its end, on this thread. Each of its waits should be one of :meth:`wait`."""
        return self._loop.run_until_complete(work)

    async def wait(self, awaited: Awaitable[_T], deadline: float | None = None) -> _T:
        """What it gives, or its error.

        :param deadline: by the monotonic clock; None: the option ``timeout`` from now on.
        :raises Denied: the server said meanwhile that a right is missing.
        :raises Lost: it does not come.
        """
        if deadline is None:
            deadline = time.monotonic() + self._options.timeout
        task: asyncio.Future[_T] = asyncio.ensure_future(awaited)
        ends: set[asyncio.Future[Any]] = {task, self._trouble}
        try:
            while not task.done():
                await asyncio.wait(ends, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    break
                if self._client.is_closed:
                    await self._ended()  # earlier releases of nats-py do not always tell
                if self._trouble.done():
                    await self._trouble
                if self._give_up():
                    raise Lost("the buffer is closing, and NATS has not answered yet")
                if time.monotonic() > deadline:
                    raise Lost("NATS takes connections, but does not answer")
            return task.result()
        finally:
            task.cancel()

    async def _noticed(self, error: Exception) -> None:
        self._first_error = self._first_error or error
        if "permissions violation" in str(error) and not self._trouble.done():
            self._trouble.set_exception(Denied(str(error).removeprefix("nats: ")))

    async def _ended(self) -> None:
        if not self._trouble.done():
            error = self._client.last_error or self._first_error
            text = str(error).removeprefix("nats: ") if error else ""
            self._trouble.set_exception(Lost(f"the connection has ended ({text or 'closed'})"))

    async def listen(self, taker: Taker, below: str = "") -> str:
        """Give the taker what comes to a subject that is made up here, with ``below`` behind it; the subject."""
        inbox = self._client.new_inbox()
        subscription = await self.wait(self._client.subscribe(inbox + below))
        self._client.takers[subscription._id] = taker  # noqa: SLF001 - its number has no other name
        return inbox

    def future(self) -> asyncio.Future[_T]:
        """Something to wait for."""
        return self._loop.create_future()

    # -- publishing ----------------------------------------------------------------------------

    def expect(self) -> tuple[bytes, asyncio.Future[Answer]]:
        """A subject for the answer to one message, and the answer to come."""
        self._asked += 1
        name = str(self._asked)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[name] = future
        return f"{self._inbox}.{name}".encode(), future

    async def write(self, commands: bytes) -> None:
        """Send commands that are encoded already; returns when the network has taken most of it."""
        self.in_doubt = True
        client = self._client
        # Not publish(): it knows no repeated headers, and takes longer for one message than all the rest here.
        await self.wait(client._send_command(commands))  # noqa: SLF001
        await self.wait(client._flush_pending())  # noqa: SLF001

    def settled(self) -> None:
        """Nothing is under way any more."""
        self.in_doubt = False
        self._answers.clear()

    def _answered(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        future = self._answers.pop(subject.rpartition(b".")[2].decode(), None)
        if future is None or future.done():
            return
        if not data:
            future.set_result(Answer(0, error=nats.errors.NoRespondersError()))
            return
        told: dict[str, Any] = json.loads(data)
        error = told.get("error")
        future.set_result(
            Answer(0, error=APIError(**error)) if error else Answer(told["seq"], bool(told.get("duplicate")))
        )

    # -- the rest ------------------------------------------------------------------------------

    def ping(self) -> None:
        """Ask the server whether it is there, and answer what it has asked. Lost, or another error: it is not."""
        self.run(self.wait(self._client.flush(LONG_S)))

    @property
    def api(self) -> str:
        """What the subjects of JetStream's commands begin with."""
        return f"$JS.{self._options.domain}.API" if self._options.domain else "$JS.API"

    @property
    def client(self) -> Client:
        """nats-py's own."""
        return self._client

    @property
    def facts(self) -> dict[str, Any]:
        """What the server told of itself."""
        return self._client._server_info  # noqa: SLF001 - the only place where it has all of it

    def close(self) -> None:
        """Let go of the connection, at once, on the thread that uses it. May be called twice."""
        if self._loop.is_closed():
            return
        # It may have been interrupted anywhere: nothing that it could do now is wanted.
        with contextlib.suppress(Exception):
            self._cut()
        for _ in range(5):
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=0.2) if tasks else asyncio.sleep(0))
        if self._trouble.done():
            self._trouble.exception()
        # With it goes the thread of a look-up of a name, as soon as that ends.
        self._loop.close()

    def _cut(self) -> None:
        transport = self._client._transport  # noqa: SLF001 - its close() would first send what is pending
        writer = getattr(transport, "_bare_io_writer", None)
        if writer is not None:
            if self.in_doubt:
                taken = writer.transport.get_extra_info("socket")
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
