"""The buffer as a program sees it.

Promises
--------
- In the modes ``buffer`` and ``always``, ``write()`` never waits for the provider, the network or a sync
  (``fsync="always"`` excepted).
- A message is checked before it is accepted; a refusal concerns that message alone.
- Every method may be called from any thread. After a fork the child gets a lane of its own at its first use.
- A program that ends closes its buffers first, in order; one that is killed loses what docs/guarantees.md says.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from mbframework.admission import MEMORY_ONLY
from mbframework.adoption import Adoption
from mbframework.budget import Budget
from mbframework.bundle import Bundle
from mbframework.closing import Closing
from mbframework.config import Config, Mode
from mbframework.engine import Engine
from mbframework.errors import BufferClosed, CloseIncomplete, ConfigurationError, Undelivered
from mbframework.files import Files
from mbframework.intake import (
    Data,
    Headers,
    check_data,
    check_headers,
    check_partition,
    check_size,
    check_timestamp,
    check_topic,
)
from mbframework.opening import open_engine
from mbframework.plugins.source import CREATING, ProviderArgument, ProviderSource, resolve
from mbframework.sigterm import Termination
from mbframework.speedups import Pen, install
from mbframework.spool.recovery import GRANT
from mbframework.units import parse_time

if TYPE_CHECKING:
    from mbframework.lane import Lane
    from mbframework.sender import Sender
    from mbframework.status import LaneStatus

_log = logging.getLogger("mbframework")
#: In the order of opening. Held here, since a program may end long after it has dropped its buffer without closing it.
_open_buffers: dict[MessageBuffer, None] = {}
#: Senders that wait for the end of a fork. Guarded by CREATING, which is held until then.
_held: list[Sender] = []
#: Buffers whose provider is in the middle of a call that must not be copied, and that the fork cannot wait for.
_copied: list[MessageBuffer] = []
#: How long a fork waits for calls of providers, in seconds for all of them together; and where a copy does harm.
_FORK_WAIT = 1.0
_FORK_WAIT_UNSAFE = 10.0
_COPIED = "this process was forked in the middle of a call of its provider, which must not be copied"
_TOPICS_KEPT = 4096
#: Messages that one write_many() takes: below half of what is reserved at a time.
MOST_AT_ONCE = GRANT // 4


class MessageBuffer(Pen, Closing):
    """A durable outbox in ``directory``, towards ``provider``.

    :param directory: made where it is missing; its parent must exist.
    :param provider: a URL such as ``"kafka://127.0.0.1:9092?compression=zstd"``, a provider object, a factory
        ``(Context) -> Provider``, or None: then this process only writes, and another one sends (``mb drain``).
    :param provider_options: options beside those in the URL.
    :param options: see docs/configuration.md; sizes and times as numbers in base units or as ``"64MiB"``, ``"10s"``.

    :raises ConfigurationError: a wrong option, URL or provider name; nothing was created.
    :raises PluginError: the provider cannot be used; the text says what to install.
    :raises DirectoryError: the directory cannot be used as it is; nothing in it was touched.
    :raises MessageBufferError: no thread can be started.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        provider: ProviderArgument = None,
        *,
        provider_options: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        config = Config.layered(directory=directory, **options)
        self._begin(config, provider, provider_options)

    @classmethod
    def from_config(cls, config: Config, provider: ProviderArgument = None) -> Self:
        """A buffer from a checked configuration; ``provider`` goes before the one that it names."""
        buffer = cls.__new__(cls)
        buffer._begin(config, provider, None)  # noqa: SLF001  (an alternative constructor)
        return buffer

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        section: str | None = None,
        *,
        provider: ProviderArgument = None,
        **options: Any,
    ) -> Self:
        """A buffer from a TOML file; keyword arguments go before what stands there. See :meth:`Config.from_toml`."""
        return cls.from_config(Config.layered(file=path, section=section, **options), provider)

    @classmethod
    def from_env(cls, prefix: str = "MBFRAMEWORK_", *, provider: ProviderArgument = None, **options: Any) -> Self:
        """A buffer from environment variables; keyword arguments go before them. See :meth:`Config.from_env`."""
        return cls.from_config(Config.layered(environ=os.environ, prefix=prefix, **options), provider)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], *, provider: ProviderArgument = None, **options: Any) -> Self:
        """A buffer from the Go library's configuration file. See :meth:`Config.from_json`."""
        return cls.from_config(Config.from_json(path).replace(**options), provider)

    @staticmethod
    def _make_files() -> Files:
        """What speaks to the operating system; tests put one in its place that fails."""
        return Files()

    @staticmethod
    def _start(engine: Engine) -> None:
        """Start what runs beside the program; tests take each thread's steps by hand instead."""
        engine.adoption = Adoption.beside(
            engine.files, engine.config, engine.source, engine.directory, engine.name, engine.hub,
            answers=lambda: engine.sender is not None and engine.sender.up,
        )  # fmt: skip
        engine.start()

    @classmethod
    def open_lanes(cls, plans: Iterable[tuple[Config, ProviderArgument]], budget: Budget) -> list[Self]:
        """A buffer for each lane, all or none; together they hold ``budget`` on disk. Errors as of the class."""
        lanes: list[Self] = []
        for config, provider in plans:
            lane = cls.__new__(cls)
            lane._plan(config, provider, None, budget)  # noqa: SLF001  (an alternative constructor)
            lanes.append(lane)
        opened: list[Self] = []
        try:
            for lane in lanes:
                lane._open(lane._source)  # noqa: SLF001  (the same)
                opened.append(lane)
        except BaseException:
            for lane in opened:
                lane.close(timeout=0)
            raise
        return lanes

    def _begin(self, config: Config, provider: ProviderArgument, options: Mapping[str, object] | None) -> None:
        self._plan(config, provider, options, None)
        self._open(self._source)

    def _plan(
        self, config: Config, provider: ProviderArgument, options: Mapping[str, object] | None, budget: Budget | None
    ) -> None:
        """Check everything that can be checked before anything is made."""
        if config.lanes:
            raise ConfigurationError(
                f"{config.label('lanes')}: a MessageBuffer writes to one lane; RoutedBuffer takes the same arguments",
                option="lanes",
            )
        if config.directory is None:
            raise ConfigurationError(
                "no directory is given; expected the path of the buffer's directory", option="directory"
            )
        given: dict[str, object] = {} if provider is None else {"provider": None}
        if options is not None and not (
            isinstance(options, Mapping) and all(isinstance(name, str) for name in options)
        ):
            raise ConfigurationError(
                f"provider_options: {type(options).__name__}; expected a mapping of option names to values",
                option="provider_options",
            )
        if options:
            given["provider_options"] = dict(config.provider_options) | dict(options)
        # What was passed beside the configuration goes before what it says, and is named as what was passed.
        self._config = config.replace(**given).anchored()
        with self._config.naming_provider():
            self._source: ProviderSource | None = resolve(
                self._config.provider if provider is None else provider, self._config.provider_options
            )
        self._files = self._make_files()
        self._topics: dict[str, bytes] = {}
        self._opening = threading.Lock()
        self._closed = False
        self._pid = os.getpid()
        #: A copy, made by a fork in the middle of a call of the provider, which must not be called in this process.
        self._copied = False
        self._engine: Engine | None = None
        self._budget = budget

    def _open(self, source: ProviderSource | None) -> Engine:
        # A fork waits until it is known what the child has to let go of.
        with CREATING:
            engine = self._engine = open_engine(self._files, self._config, source, self._budget)
            _open_buffers[self] = None
        self._pid = os.getpid()
        try:
            self._start(engine)
        except BaseException:
            _open_buffers.pop(self, None)
            # The next use tries again.
            self._engine = None
            raise
        _install_exit()
        self._bind(engine.lane, self._topics)
        return engine

    def __repr__(self) -> str:
        where = self._source.display if self._source is not None else "nothing (it only writes)"
        return f"<MessageBuffer {self._config.directory} towards {where}>"

    # ---- writing

    def write(
        self,
        topic: str,
        value: Data,
        key: Data = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> int:
        """Accept one message and return its sequence.

        :param value: bytes-like, text (as UTF-8), or None (a tombstone, which is not ``b""``).
        :param headers: pairs of a name and a value; order and duplicates are kept.
        :param partition: where the provider has partitions: this one instead of the key's.
        :param timestamp: nanoseconds since 1970; None: the time of acceptance.

        The sequence is 0 where the call interrupted another one of the same buffer in the same thread (from a signal
        handler or a finaliser): then the message is accepted soon after, and a refusal is logged.

        :raises MessageError: this message is refused; the buffer is unchanged.
        :raises NotAccepted: not now: the buffer is full (``BufferFull``), closed, its device broken, or the mode
            says so (``ProviderUnavailable``).
        :raises DurabilityError: ``fsync="always"`` and the device failed: accepted, do not write it again.
        """
        engine = self._engine or self._reopen()
        try:
            raw = self._topics.get(topic) or self._check_topic(topic)
        except TypeError:
            # It cannot be hashed: no text.
            raw = check_topic(topic)
        if value.__class__ is not bytes:
            value = check_data(value, "value")
        if key is not None and key.__class__ is not bytes:
            key = check_data(key, "key")
        block = None if headers is None else check_headers(headers)
        if partition is not None:
            check_partition(partition)
        if timestamp is not None:
            check_timestamp(timestamp)
        size = len(raw)
        if value is not None:
            size += len(value)
        if key is not None:
            size += len(key)
        if block is not None:
            size += len(block)
        lane = engine.lane
        if size > lane.max_message:
            check_size(size, lane.max_message)
        return lane.write((topic, value, key, block, timestamp, partition), raw, size)

    def write_many(
        self,
        topic: str,
        values: Iterable[Data],
        keys: Iterable[Data] | None = None,
        headers: Iterable[Headers | None] | None = None,
        partitions: Iterable[int | None] | None = None,
        timestamps: Iterable[int | None] | None = None,
    ) -> range:
        """Accept many messages of one topic, with successive sequences; the range of them.

        Each column has one entry a message. All are checked before the first is accepted.

        :raises MessageError: one of them is refused, and so are all.
        :raises BufferFull: there was no room for all: ``accepted`` on the error is the range of those that got in.
        :raises NotAccepted, DurabilityError: as for :meth:`write`.
        """
        bundle = self.check_many(topic, values, keys, headers, partitions, timestamps)
        return self.running_lane().write_many(bundle, bundle.size)

    def check_many(
        self,
        topic: str,
        values: Iterable[Data],
        keys: Iterable[Data] | None = None,
        headers: Iterable[Headers | None] | None = None,
        partitions: Iterable[int | None] | None = None,
        timestamps: Iterable[int | None] | None = None,
    ) -> Bundle:
        """The checked messages. Raises MessageError."""
        limit = self.running_lane().max_message
        raw = self._check_topic(topic)
        return Bundle(topic, raw, values, keys, headers, partitions, timestamps, most=MOST_AT_ONCE, limit=limit)

    def _check_topic(self, topic: str) -> bytes:
        raw = check_topic(topic)
        if len(self._topics) >= _TOPICS_KEPT:
            self._topics.clear()
        self._topics[topic] = raw
        return raw

    # ---- control

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before the call is delivered (or expired, pruned, dead, purged).

        :raises FlushTimeout: it is not within ``timeout`` seconds (a ``TimeoutError``); ``remaining`` says how much.
        """
        self._living().flush(None if timeout is None else parse_time(timeout, name="timeout"))

    def sync(self) -> None:
        """Return when everything accepted so far is on the device, or delivered.

        :raises ModeError: modes ``block`` and ``raise`` keep nothing on disk.
        :raises BufferFull: there is no room for what is in memory.
        :raises OSError: the device failed.
        """
        self._living().sync()

    def set_mode(self, mode: Mode) -> None:
        """Change what ``write()`` does about provider trouble.

        :raises ConfigurationError: there is no such mode.
        :raises ModeError: not now: ``block`` and ``raise`` need an empty backlog.
        """
        Config.from_mapping({"mode": mode})
        self._living().set_mode(mode)

    def pause(self) -> None:
        """Send nothing until :meth:`resume`; writing goes on."""
        self._living().pause()

    def resume(self) -> None:
        """Send again, at once."""
        self._living().resume()

    def retry_now(self) -> None:
        """End the present wait between two attempts."""
        sender = self._living().sender
        if sender is not None:
            sender.interrupt()

    def purge(self) -> int:
        """Remove everything that waits; how many messages. They are counted as purged.

        What the provider has in hand is delivered all the same; it is not part of the number. Nor is, after a kill, the
        batch that it had in hand then: where it keeps its position, it is asked first, when it can be reached.
        """
        return self._living().purge()

    @property
    def pressure(self) -> float:
        """How full the buffer is, from 0.0 to 1.0: for a service that would rather answer 503."""
        return self._living().pressure()

    def status(self) -> LaneStatus:
        """Mode, state, accounts, backlog, last error. Costs about a tenth of a millisecond."""
        engine = self._engine or self._reopen()
        return engine.narrator.status()

    @property
    def lane(self) -> str:
        """The name of the lane that this buffer got."""
        return (self._engine or self._reopen()).name

    @property
    def directory(self) -> str:
        """The absolute path of the buffer's directory."""
        return str(self._config.directory)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    # ---- closing

    def close(self, timeout: float | None = None) -> None:
        """Try to deliver what waits for ``timeout`` seconds (``close_timeout``), keep the rest, let go of everything.

        A second call does nothing; while the first is under way, it waits for it.

        :raises Undelivered: modes ``block`` and ``raise``, or no room on disk: ``messages`` holds what is left.
        :raises SenderStuck: the provider has not returned; what it holds is kept and will be sent again.
        """
        seconds = self._config.close_timeout if timeout is None else parse_time(timeout, name="timeout")
        self._closed = True
        engine = self._engine
        if engine is not None:
            engine.close(seconds)
        _open_buffers.pop(self, None)

    def _living(self) -> Engine:
        engine = self._engine or self._reopen()
        if engine.closed:
            raise BufferClosed("the buffer is closed; open it anew")
        return engine

    def running_engine(self) -> Engine:
        """What does the work, for :mod:`mbframework.aio`. Raises BufferClosed."""
        return self._living()

    def running_lane(self) -> Lane:
        """The lane underneath, for :mod:`mbframework.aio`."""
        return (self._engine or self._reopen()).lane

    # ---- forks and exits

    def _after_fork(self) -> None:
        """In the child, before anything else runs there."""
        self._opening = threading.Lock()
        if self._budget is not None:
            self._budget.forget()
        engine, self._engine = self._engine, None
        self._bind(None, self._topics)
        if engine is not None:
            try:
                engine.forget()
            except OSError:
                # The other buffers have to let go as well: what they hold are the parent's files.
                _log.exception("letting go of a lane after a fork")

    def _reopen(self) -> Engine:
        """The child of a fork gets a lane of its own."""
        with self._opening:
            if self._engine is not None:
                return self._engine
            if self._closed:
                raise BufferClosed("the buffer is closed; open it anew")
            if self._source is not None and not self._source.shareable:
                raise BufferClosed(
                    f"this process was forked from the one that opened the buffer, and a provider object "
                    f"({self._source.display}) cannot serve both: open a buffer after the fork, or give the provider "
                    "as a URL or a factory"
                )
            if self._copied and self._config.mode in MEMORY_ONLY:
                raise BufferClosed(f"{_COPIED}: open a buffer after the fork")
            if self._copied:
                _log.error("%s: this process only writes, and another one has to send (mb drain)", _COPIED)
            return self._open(None if self._copied else self._source)


install(MessageBuffer)


def _close_all() -> Undelivered | None:
    """At the end of the program: every buffer that is still open. What the first of them could not keep, if any."""
    undelivered: Undelivered | None = None
    for buffer in list(_open_buffers):
        if buffer._pid != os.getpid():  # noqa: SLF001  (same module)
            continue
        try:
            buffer.close()
        except CloseIncomplete as error:
            _log.warning("closing %s at the end of the program: %s", buffer.directory, error)
            if isinstance(error, Undelivered):
                undelivered = undelivered or error
        except Exception:  # noqa: BLE001  (the other buffers still have to be closed)
            _log.exception("closing %s at the end of the program failed", buffer.directory)
    return undelivered


def _at_exit() -> None:
    """:raises Undelivered: the interpreter prints it, as it prints what else goes wrong at its end: a program that
    keeps nothing on disk would otherwise lose its messages in silence."""
    undelivered = _close_all()
    if undelivered is not None:
        raise undelivered


def _at_celery_exit(**_: object) -> None:
    """A process of Celery's prefork pool calls this before it leaves by os._exit(); Celery logs what is raised."""
    _at_exit()


_exit_installed = 0


def _install_exit() -> None:
    """Close buffers at the end of this process; those of multiprocessing and of Celery leave past atexit."""
    global _exit_installed  # noqa: PLW0603  (once a process)
    if _exit_installed == os.getpid():
        return
    _exit_installed = os.getpid()
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _at_exit, exitpriority=100)
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(_at_celery_exit, weak=False)


def _before_fork() -> None:
    """The child must not inherit a client library in the middle of a call: its locks, there, are never released."""
    CREATING.acquire()
    begun = time.monotonic()
    for buffer in list(_open_buffers):
        for sender in buffer._engine.senders() if buffer._engine is not None else ():  # noqa: SLF001  (same module)
            longest = _FORK_WAIT if sender.fork_safe else _FORK_WAIT_UNSAFE
            if sender.hold(max(0.0, begun + longest - time.monotonic())):
                _held.append(sender)
            elif not sender.fork_safe:
                _copied.append(buffer)


def _forked_parent() -> None:
    while _held:
        _held.pop().let_go()
    _copied.clear()
    CREATING.release()


def _forked_child() -> None:
    for buffer in _copied:
        buffer._copied = True  # noqa: SLF001  (same module)
    _forked_parent()
    for buffer in list(_open_buffers):
        buffer._after_fork()  # noqa: SLF001  (same module)


if hasattr(os, "register_at_fork"):
    # Before ours: a provider's client that imported it while a fork waits for that would have a lock given back after
    # the fork that nobody took before.
    import concurrent.futures.thread  # noqa: F401

    os.register_at_fork(before=_before_fork, after_in_parent=_forked_parent, after_in_child=_forked_child)


def install_sigterm() -> Callable[[], None]:
    """Close all buffers when SIGTERM arrives, then do what was to be done before: call the former handler, or end.

    Python runs no exit handlers on SIGTERM by default. Call it in the main thread; the result undoes it.
    """
    return Termination(_close_all).undo
