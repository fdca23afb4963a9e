"""The thread that takes a lane's messages to its provider.

Promises
--------
- It alone calls the provider (but for ``close()``, which a closing buffer may call while ``send()`` is stuck).
- Whatever a provider raises becomes a wait and another attempt, never an end of the thread; what is not a
  :class:`~mbframework.errors.SendFailed` is logged with its traceback.
- It is a daemon: a ``send()`` that never returns does not keep the program from ending.
- Waits are interrupted by ``close()``, ``resume()`` and mode changes.
- A fork comes between two calls of the provider, unless a call outlasts what the fork may wait.

``run`` is the thread; everything else may be called from any other.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import index
from typing import TYPE_CHECKING

from mbframework import acknowledged
from mbframework.acknowledged import Acknowledged
from mbframework.admission import MEMORY_ONLY
from mbframework.backoff import Backoff
from mbframework.errors import MessageBufferError, ProviderUnusable, SendFailed, UnsupportedFormat
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.flight import Flight
from mbframework.lane import Lane
from mbframework.message import Position, fault_of
from mbframework.outlet import Outlet, Retired
from mbframework.portion import Portion
from mbframework.provider import Context, Provider, keeps_no_position
from mbframework.throttle import Throttle
from mbframework.wakeup import Wakeup

if TYPE_CHECKING:
    from mbframework.config import Config
    from mbframework.plugins.source import ProviderSource

_log = logging.getLogger("mbframework.sender")
_IDLE_WAIT = 0.05
_IDLE_CALL_NS = 10**9
_READ_AGAIN = 1.0
#: The fingerprint of a destination that is not known.
UNKNOWN_DESTINATION = bytes(32)


@dataclass(slots=True)
class Trouble:
    """The provider's last error, for the status; times are boot-clock nanoseconds, ``count`` failures in a row."""

    text: str = ""
    began: int = 0
    last: int = 0
    count: int = 0
    retry_at: int = 0


@dataclass(slots=True)
class Traffic:
    """What went out since opening."""

    batches: int = 0
    failures: int = 0
    retries: int = 0
    bytes: int = 0
    #: Boot-clock nanoseconds.
    last_delivered: int = 0


@dataclass
class Sender:
    """See the module. ``known_run`` says whether a run id is one of this lane's openings."""

    files: Files
    config: Config
    source: ProviderSource
    context: Context
    outlet: Outlet
    lane: Lane | None
    events: EventLog
    known_run: Callable[[bytes], bool]
    #: The fingerprint of the destination that a backlog belongs to, and how to store another.
    destination: Callable[[], bytes]
    bind: Callable[[bytes], None]
    #: What the provider has, as far as its position tells.
    acknowledged: Acknowledged
    #: The recent pace of writing, messages per second.
    intake: Callable[[], float]
    #: Called when anything in the state may have changed.
    notify: Callable[[], None] = lambda: None

    provider: Provider | None = None
    paused: bool = False
    stopping: bool = False
    #: True while the provider answers.
    up: bool = False
    ever_failed: bool = False
    up_since: int = 0
    trouble: Trouble = field(default_factory=Trouble)
    traffic: Traffic = field(default_factory=Traffic)
    facts: Mapping[str, str] = field(default_factory=dict)
    #: A reason, found at opening, for which nothing may be sent ("" for none): another identity.
    barred: str = ""
    #: Called at the very end of the thread.
    ended: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.context = replace(self.context, went_back=self._went_back)
        self._interrupt = Wakeup()
        self._backoff = Backoff(self.config.retry_wait, self.config.retry_wait_max)
        self._throttle = Throttle(self.config.max_rate, self.config.catch_up == "ramp")
        self._portion = Portion()
        #: Why the provider could not be opened, where it was no fault of its service; as last told.
        self._unopened = ""
        self._wake = self.lane.wake if self.lane is not None else Wakeup()
        #: Held around every call of the provider, and by a thread that forks.
        self._calling = threading.RLock()
        self._in_call = False
        #: The provider was opened and not closed since; and the lane may send to it.
        self._connected = self._opened = False
        #: The provider's destination was looked at once: what is written from then on is meant for it.
        self._agreed = False
        self._idle_at = 0
        self.thread = threading.Thread(target=self.run, name=f"mbframework-sender-{self.context.lane}", daemon=True)
        #: Set when the thread will not touch the lane any more; its provider may still be disconnecting.
        self.finished = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def interrupt(self) -> None:
        """End the present wait: try again now."""
        self._interrupt.set()
        self._wake.set()

    def stop(self) -> None:
        """Ask the thread to end after the present call of the provider."""
        self.stopping = True
        self.context.stopping.set()
        self.interrupt()

    def hold(self, timeout: float) -> bool:
        """Keep the provider from being called until :meth:`let_go`, since the process is about to fork; False where it
        has not returned within ``timeout`` seconds. A provider that a fork must not copy is closed, and opened again
        at its next use. The thread that forks."""
        if not self._calling.acquire(timeout=timeout):
            return False
        try:
            # A provider that forks within a call of its own knows what it does.
            if self._connected and not (self.fork_safe or self._in_call):
                self._close_provider(timeout)
        except BaseException:
            self._calling.release()
            raise
        return True

    @property
    def fork_safe(self) -> bool:
        """Whether a fork may copy the provider as it is."""
        return self.provider is None or self.provider.fork_safe

    def let_go(self) -> None:
        """Undo :meth:`hold`, in the parent or in the child. The same thread."""
        self._calling.release()

    def run(self) -> None:
        """The thread."""
        epoch = self.outlet.epoch
        try:
            while not self.stopping:
                self.step(epoch)
        except Retired:
            _log.info("lane %s: the sender returned after the buffer had given it up", self.context.lane)
        except BaseException:
            # The thread's last word: without it a defect of ours would look like a silent provider.
            _log.critical(
                "lane %s: the sender has ended by a defect; messages are kept", self.context.lane, exc_info=True
            )
            self.outlet.blocked = "the sender has ended by a defect; see the log, and open the buffer anew"
            raise
        finally:
            self.finished.set()
            self._close_provider(5.0)
            self.notify()
            self.ended()

    def step(self, epoch: int) -> None:
        """One batch, or the wait for one. Raises Retired."""
        try:
            self._round(epoch)
        except UnsupportedFormat as error:
            self._block(f"the spool goes on in a format of a newer release: {error}")
        except OSError as error:
            # Soon, since of a page that the device goes on refusing the reader gives up only that page.
            self._block(f"the buffer's directory cannot be read: {error}", _READ_AGAIN)

    def _round(self, epoch: int) -> None:
        if self.paused or self.barred:
            self.outlet.blocked = self.barred
            self._sleep(1.0)
            return
        if self._opened and self.outlet.in_question():
            # A provider is asked when it is opened.
            self._close_provider(1.0)
        if not self._opened:
            if not self._open(epoch):
                # Age does not wait for a provider that cannot be reached; one that can be is asked first what it has.
                self.outlet.expire()
                return
        now = self.files.boot_ns() / 1e9
        if self._throttle.wait(now) > 0:
            self._sleep(self._throttle.wait(now))
            return
        flight = self.outlet.take(
            self._throttle.allowance(now, self.config.batch_messages), may_go_live=self._may_go_live
        )
        if flight is None:
            self._idle()
            return
        with self.outlet.ledger.lock:
            # What was written after pause() had returned is not sent, however far this round had come.
            if self.paused:
                return
        self._send(flight, epoch)

    # ---- opening

    def _open(self, epoch: int) -> bool:
        try:
            with self._call():
                if self.provider is None:
                    self.provider = self.source.create(self.context)
                    self.outlet.ledger.asks = not keeps_no_position(self.provider)
                    if not self.outlet.ledger.asks:
                        # Neither age nor a limit has to wait until it can be reached.
                        self.outlet.ledger.release()
                self._connected = True
                self.provider.open(self.context)
                self._inspect(self.provider)
                name, position = _told(self.provider)
        except BaseException as error:  # noqa: BLE001  (anything a plugin raises is a failure to open, reported below)
            self._failed_to_open(error)
            return False
        if self.stopping:
            return False
        if not self._agree(name, position, epoch):
            self._close_provider(1.0)
            self._sleep(min(5.0, self.config.retry_wait_max))
            return False
        self._agreed = True
        self._opened = self._connected
        self.outlet.blocked = self._unopened = ""
        self._succeeded()
        _log.info("lane %s: connected to %s", self.context.lane, self.source.display)
        return self._opened

    def _inspect(self, provider: Provider) -> None:
        self.facts = {str(name): self.source.scrub(str(value)) for name, value in provider.describe().items()}
        self._heed_limit(provider)

    def _heed_limit(self, provider: Provider | None) -> None:
        limit = None if provider is None else provider.max_message_bytes
        if self.lane is not None:
            most = self.lane.limits.max_message
            self.lane.max_message = min(most, limit) if isinstance(limit, int) and limit > 0 else most

    def _failed_to_open(self, error: BaseException) -> None:
        self._close_provider(1.0)
        if isinstance(error, ProviderUnusable):
            self._block(self._text(error))
            return
        if not isinstance(error, SendFailed):
            text = f"{type(error).__name__}: {self._text(error)}"
            # What goes on failing in the same way has shown where.
            trace = None if text == self._unopened else error
            self._unopened = text
            _log.error("lane %s: opening the provider failed: %s", self.context.lane, text, exc_info=trace)
        if isinstance(error, MessageBufferError) and not isinstance(error, SendFailed):
            self._block(self._text(error))
            return
        asked = error.retry_after if isinstance(error, SendFailed) else None
        self._down(error, self._backoff.failed(asked), uncertain=False)

    def _agree(self, name: str, position: Position | None, epoch: int) -> bool:
        """Whether the backlog belongs to this destination, and the provider's position to this lane."""
        fingerprint = hashlib.sha256(name.encode()).digest() if name else UNKNOWN_DESTINATION
        bound = self.destination()
        if name and bound != fingerprint:
            if bound != UNKNOWN_DESTINATION and self._backlog(since_opening=self._agreed) and not self.config.rebind:
                self._block(
                    "the backlog was written for another destination than this provider's; connect the former one, "
                    "or open with rebind=True to deliver it here"
                )
                return False
            self.bind(fingerprint)
        if position is not None and not self.known_run(position.run):
            self._block(
                "PositionFromElsewhere: the provider keeps a position of this buffer that was written by an opening "
                "which this directory does not know (a restored or copied directory?); nothing is skipped or sent"
            )
            return False
        if self.outlet.ledger.asks:
            self._compare(position)
        if position is None:
            self.outlet.ledger.release()
            self.outlet.told(0)
            return True
        self.outlet.ledger.release(position.sequence)
        self.outlet.told(position.sequence)
        with self.outlet.ledger.lock:
            behind = position.sequence > self.outlet.ledger.next
        if behind:
            skipped = self.outlet.skip_to(position.sequence)
            self.events.tell("position", sequence=position.sequence, skipped=skipped)
        return True

    def _compare(self, position: Position | None) -> None:
        """What the provider has with what it had acknowledged."""
        display, sequence = self.source.display, 0 if position is None else position.sequence
        before = min(self.acknowledged.at(display), self.outlet.ledger.next)
        if sequence < before and self.provider is not None and self.provider.position_tells:
            self._went_back(before, sequence)
        self.acknowledged.reached(display, sequence)

    def _went_back(self, before: int, after: int) -> None:
        """The provider's position did. On the sender's thread, perhaps within a call of the provider."""
        count = self.acknowledged.went_back(before, after, self.outlet.ledger.slot.delivered)
        text = acknowledged.words(self.source.name, before, after, count)
        _log.error("lane %s: %s", self.context.lane, text)
        self.events.tell("acknowledged-lost", before=before, after=after, messages=count, reason=text)
        self.trouble.text, self.trouble.last = text, self.files.boot_ns()
        self.notify()

    def _backlog(self, *, since_opening: bool = True) -> bool:
        """Whether messages wait on disk; ``since_opening``: also those that were written after the lane was opened."""
        ledger = self.outlet.ledger
        if self.lane is None:
            return True
        with ledger.lock, self.lane.lock:
            end = self.lane.spool.ordinal if since_opening else self.lane.begun_ordinal
            return end > ledger.ordinal

    # ---- sending

    def _send(self, flight: Flight, epoch: int) -> None:
        indices = flight.remaining()
        if len(indices) > self._portion.most:
            indices = indices[: self._portion.most]
        batch = flight.batch(indices)
        provider = self.provider
        if provider is None:
            return
        begun = self.files.boot_ns()
        try:
            with self._call():
                if not self._opened:
                    # A fork has closed it meanwhile: the next round opens it and sends the same flight.
                    return
                self.traffic.batches += 1
                provider.send(batch)
        except SendFailed as error:
            self._refused(flight, indices, error, epoch)
        except ProviderUnusable as error:
            self.outlet.failed(flight, indices, SendFailed(str(error)), epoch)
            self._block(self._text(error))
        except BaseException as error:  # noqa: BLE001  (the contract: else the whole batch has failed)
            if self._set_aside(flight, indices, epoch):
                return
            _log.exception("lane %s: the provider raised something other than SendFailed", self.context.lane)
            wrapped = SendFailed(f"{type(error).__name__}: {self._text(error)}", uncertain=True)
            self._refused(flight, indices, wrapped, epoch)
        else:
            self.outlet.delivered(flight, indices, epoch)
            if self.outlet.ledger.asks:
                self.acknowledged.reached(self.source.display, batch.sequences[-1] + 1)
            now = self.files.boot_ns()
            size = batch.size_in_bytes()
            self.traffic.bytes += size
            self.traffic.last_delivered = now
            self._throttle.sent(now / 1e9, len(indices))
            self._portion.succeeded()
            self._succeeded()
            self.events.observe(
                "batch_delivered", first_sequence=batch.sequences[0], last_sequence=batch.sequences[-1],
                messages=len(batch), size=size, seconds=(now - begun) / 1e9,
            )  # fmt: skip

    def _refused(self, flight: Flight, indices: Sequence[int], error: SendFailed, epoch: int) -> None:
        self.traffic.failures += 1
        self._heed_limit(self.provider)
        error = sound(error, len(indices))
        before = flight.open
        hindrance = self.outlet.failed(flight, indices, error, epoch)
        if hindrance is not None:
            self._block(*hindrance)
            return
        left = flight.open
        arrived = [index for index in indices if flight.marks[index] == "delivered"]
        if arrived:
            self.traffic.bytes += flight.batch(arrived).size_in_bytes()
            self.traffic.last_delivered = self.files.boot_ns()
        if left and self._set_aside(flight, indices, epoch):
            return
        nothing_failed = error.undelivered is not None and not error.undelivered
        if nothing_failed or (error.rejected and left < before):
            # They are among the dead letters, and the provider itself is well: the rest goes on at once. If it is
            # not, the next attempt tells. What was pruned or purged meanwhile says nothing of the provider.
            self._succeeded()
            return
        if error.uncertain and left == before:
            self._portion.timed_out(len(indices))
        wait = self._backoff.failed(error.retry_after)
        sequences = flight.first + indices[0], flight.first + indices[-1]
        self.events.observe(
            "batch_failed", first_sequence=sequences[0], last_sequence=sequences[1], messages=left,
            reason=self._text(error), uncertain=error.uncertain, retry_wait=wait,
        )  # fmt: skip
        self._down(error, wait, uncertain=error.uncertain)
        self.traffic.retries += 1

    def _set_aside(self, flight: Flight, indices: Sequence[int], epoch: int) -> bool:
        """Of a batch that failed, what no provider can read goes to the dead letters; whether there was any. Then the
        rest is tried again at once."""
        blocks = flight.run.header_blocks
        faults = {index: fault for index in indices if not flight.marks[index] and (fault := fault_of(blocks[index]))}
        if not faults:
            return False
        hindrance = self.outlet.set_aside(flight, faults, epoch)
        if hindrance is not None:
            self._block(*hindrance)
        return True

    def _down(self, error: BaseException, wait: float, *, uncertain: bool) -> None:
        """The provider failed: leave live, tell, wait."""
        text = self._text(error)
        self.outlet.blocked = ""
        self._note(text, wait, uncertain=uncertain)
        self._leave_live(text)
        self._pause(wait)

    def _block(self, why: str, longest: float = math.inf) -> None:
        """A person is needed. Attempts go on, at long intervals, since the far side may be mended."""
        why = self.source.scrub(why)
        news = self.outlet.blocked != why
        self.outlet.blocked = why
        wait = min(self.config.retry_wait_max, longest)
        self._note(why, wait, uncertain=False)
        if news:
            self.events.tell("blocked", reason=why)
            _log.error("lane %s is blocked: %s", self.context.lane, why)
        self._leave_live(why)
        self._pause(wait)

    def _note(self, text: str, wait: float, *, uncertain: bool) -> None:
        now = self.files.boot_ns()
        trouble = self.trouble
        if self.up or not trouble.count:
            trouble.began = now
            trouble.count = 0
        if not trouble.count or text != trouble.text:
            _log.warning("lane %s: %s: %s", self.context.lane, self.source.display, text)
            self.events.tell("failure", reason=text, uncertain=uncertain, retry_wait_s=round(wait, 3))
        self.up = False
        self.ever_failed = True
        trouble.text, trouble.last = text, now
        trouble.count += 1
        trouble.retry_at = now + int(wait * 1e9)
        self._throttle.caught_up()

    def _leave_live(self, why: str) -> None:
        lane = self.lane
        if lane is not None:
            with self.outlet.ledger.lock, lane.lock:
                lane.provider_error = SendFailed(why)
                lane.reconsider()
                if lane.mode not in MEMORY_ONLY:
                    lane.leave_live_if_possible(why)
                    # What was settled of a batch in memory counts from now on like that of one on disk.
                    try:
                        self.outlet.note_progress()
                        self.outlet.ledger.name_flight()
                    except OSError as error:
                        # It is in memory, and goes out with what the seek has to say next.
                        _log.warning("lane %s: the seek cannot be stored: %s", self.context.lane, error)
                lane.changed.notify_all()
        self.notify()

    def _succeeded(self) -> None:
        self._backoff.succeeded()
        if self.outlet.blocked and not self.barred:
            self.outlet.blocked = ""
        if self.up:
            return
        self.up = True
        now = self.files.boot_ns()
        self.up_since = now
        trouble = self.trouble
        if trouble.count:
            _log.info("lane %s: the provider answers again", self.context.lane)
            self.events.tell("provider-back", failures=trouble.count, error=trouble.text)
        trouble.count = 0
        trouble.retry_at = 0
        lane = self.lane
        if lane is not None:
            with lane.lock:
                lane.provider_error = None
                lane.reconsider()
                lane.changed.notify_all()
        if self.ever_failed or self._backlog():
            self._throttle.catch_up(now / 1e9, self.intake())
        self.notify()

    def _may_go_live(self) -> bool:
        lane = self.lane
        if lane is None or lane.mode == "always" or not self.up or self.barred or self.outlet.blocked or self.paused:
            return False
        now, steady = self.files.boot_ns(), self.config.live_after * 1e9
        settled = (not self.ever_failed or now - self.up_since >= steady) and (
            not lane.left_live_at or now - lane.left_live_at >= steady
        )
        if settled:
            self._throttle.caught_up()
        return settled

    # ---- waiting

    def _idle(self) -> None:
        lane = self.lane
        now = self.files.boot_ns()
        if self.up:
            self._throttle.caught_up()
        if now - self._idle_at > _IDLE_CALL_NS and self.provider is not None:
            self._idle_at = now
            try:
                with self._call():
                    if not self._opened:
                        return
                    self.provider.idle()
            except SendFailed as error:
                self._down(error, self._backoff.failed(error.retry_after), uncertain=False)
                return
            except ProviderUnusable as error:
                self._block(self._text(error))
                return
            except BaseException as error:  # noqa: BLE001  (a plugin's failure must not end the thread)
                _log.exception("lane %s: the provider's idle() failed", self.context.lane)
                self._down(error, self._backoff.failed(None), uncertain=False)
                return
            if not self.up:
                self._succeeded()
        if lane is None:
            self._wake.wait(_IDLE_WAIT)
            self._wake.clear()
            return
        lane.sleeping = True
        if not self.stopping and not lane.waiting(self.outlet.ledger.next):
            self._wake.wait(_IDLE_WAIT)
        self._wake.clear()
        lane.sleeping = False

    def _pause(self, wait: float) -> None:
        """The wait between two attempts."""
        self._interrupt.wait(wait)

    def _sleep(self, wait: float) -> None:
        self._interrupt.wait(min(wait, 1.0))

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Around whatever calls the provider. No wait of ours belongs inside: a fork waits for its end."""
        with self._calling:
            self._in_call = True
            try:
                yield
            finally:
                self._in_call = False

    def _close_provider(self, timeout: float) -> None:
        provider = self.provider
        if provider is None:
            return
        try:
            with self._call():
                self._connected = self._opened = False
                provider.close(timeout)
        except BaseException:  # noqa: BLE001  (it is being let go; what it has to say is for the log)
            _log.exception("lane %s: closing the provider failed", self.context.lane)

    def _text(self, error: BaseException) -> str:
        try:
            said = str(error)
        except Exception:  # noqa: BLE001  (a foreign exception whose text fails must not end the thread)
            said = ""
        return self.source.scrub(said or type(error).__name__)


def _told(provider: Provider) -> tuple[str, Position | None]:
    """The provider's destination and position. Raises TypeError: it gives something else."""
    name: object = provider.destination()
    if not isinstance(name, str):
        raise TypeError(f"destination() gave {type(name).__name__}; expected a text")
    position: object = provider.committed()
    if position is not None and not isinstance(position, Position):
        raise TypeError(f"committed() gave {type(position).__name__}; expected a Position, or None")
    return name, position


def sound(error: SendFailed, count: int) -> SendFailed:
    """The error of a batch of ``count`` messages, where what it says of them makes sense; else one that says nothing of
    them, so that the whole batch counts as undelivered."""
    asked: object = error.retry_after
    wait = float(asked) if isinstance(asked, (int, float)) and math.isfinite(asked) and asked > 0 else None
    try:
        rejected = {index(i): str(reason) for i, reason in error.rejected.items()}
        undelivered = None if error.undelivered is None else [index(i) for i in error.undelivered]
    except (TypeError, ValueError, AttributeError):
        rejected, undelivered = {-1: ""}, None
    if all(0 <= i < count for i in (*rejected, *(undelivered or ()))):
        return SendFailed(
            str(error), undelivered=undelivered, rejected=rejected, uncertain=bool(error.uncertain), retry_after=wait
        )
    return SendFailed(
        f"{error} (the provider names messages that were not in the batch: all of it is tried again)",
        uncertain=True,
        retry_after=wait,
    )
