"""A program that writes numbered messages while something is done to it, and notes everything that it sees.

Promises
--------
- Every message that was accepted is noted, in order, as is every refusal by its type; any other exception ends it and
  is a breach.
- :meth:`Application.judge` compares what was accepted with what arrived and with the accounts: what is missing must be
  counted as pruned, nothing twice, nothing out of order.

``run`` is its own thread; everything else belongs to whoever made it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from mbframework_fake.broker import FakeBroker

from mbframework import LaneStatus, MessageBuffer, NotAccepted
from tests.engine.rig import numbers, padded

#: Seconds within which a program goes on after the trouble is over: the promise.
RECOVERY_S = 5.0
#: For anything else that must happen and depends on the machine's pace.
PATIENCE_S = 30.0
_SIZE = 1000


@dataclass
class Outcome:
    """What came of one situation. ``breaches`` is empty where it went as promised; ``recovered_s``: seconds from the
    end of the trouble to the next message that was accepted, and to the first that was delivered."""

    name: str
    device: str = ""
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    delivered: int = 0
    pruned: int = 0
    dead: int = 0
    slowest_ms: float = 0.0
    recovered_s: float | None = None
    notes: list[str] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One line."""
        refused = ", ".join(f"{count:,} × {what}" for what, count in self.refused.items()) or "none"
        recovered = "" if self.recovered_s is None else f"; recovered in {self.recovered_s:.2f} s"
        where = f" on {self.device}" if self.device else ""
        return (
            f"{'BREACH' if self.breaches else 'PASS'} {self.name}{where}: accepted {self.accepted:,}, refused "
            f"{refused}, delivered {self.delivered:,}, pruned {self.pruned:,}, dead {self.dead:,}; slowest write() "
            f"{self.slowest_ms:.0f} ms{recovered}"
            + "".join(f"; {note}" for note in self.notes)
            + "".join(f"; BREACH: {breach}" for breach in self.breaches)
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class Application(threading.Thread):
    """See the module. ``pace``: seconds between two messages."""

    def __init__(self, buffer: MessageBuffer, broker: FakeBroker, outcome: Outcome, pace: float = 0.001) -> None:
        super().__init__(name="torture-application", daemon=True)
        self.buffer = buffer
        self.broker = broker
        self.outcome = outcome
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        #: Why the last one was refused; its class, and whether a call has not returned yet.
        self.refusal = ""
        self.writing_since = 0.0
        self.changed = threading.Condition()
        self._pace = pace
        self._enough = threading.Event()

    def run(self) -> None:
        """Write until told to stop."""
        while not self._enough.wait(self._pace):
            begun = self.writing_since = time.monotonic()
            try:
                self.buffer.write("topic", padded(self.accepted, _SIZE))
            except NotAccepted as refusal:
                self.refused[type(refusal).__name__] += 1
                self.refusal = str(refusal)
                self._enough.wait(0.01)
            except BaseException as error:  # noqa: BLE001  (whatever it is: an application must not see it)
                self.breach(f"write() raised {error!r}")
                return
            else:
                with self.changed:
                    self.accepted += 1
                    self.changed.notify_all()
                self.outcome.slowest_ms = max(self.outcome.slowest_ms, (time.monotonic() - begun) * 1000)
            finally:
                self.writing_since = 0.0

    def breach(self, text: str) -> None:
        """Something is not as promised."""
        self.outcome.breaches.append(text)

    def write_for(self, seconds: float) -> int:
        """Let it go on for so long; how many messages were accepted meanwhile."""
        before = self.accepted
        self._enough.wait(seconds)
        return self.accepted - before

    def accepts(self, timeout: float, more: int = 1) -> bool:
        """Whether so many more messages are accepted in time."""
        with self.changed:
            target = self.accepted + more
            return self.changed.wait_for(lambda: self.accepted >= target, timeout)

    def waits(self) -> bool:
        """Whether a write has not returned for a while."""
        return bool(self.writing_since) and time.monotonic() - self.writing_since > 0.2

    def until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE_S) -> float:
        """Wait for what nothing announces; the seconds that it took."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > timeout:
                state = self.buffer.status()
                self.breach(f"{what} did not come about within {timeout:g} s ({state.state}: {state.state_reason})")
                break
            self._enough.wait(0.005)
        return time.monotonic() - begun

    def recover(self, trouble_ends: Callable[[], None]) -> None:
        """End the trouble, and measure how long it takes until messages are accepted again."""
        begun = time.monotonic()
        trouble_ends()
        if not self.accepts(RECOVERY_S, more=3):
            why = self.buffer.status()
            self.breach(f"nothing is accepted {RECOVERY_S:g} s after the end ({why.state}: {why.state_reason})")
        self.outcome.recovered_s = time.monotonic() - begun

    def delivers(self, timeout: float = RECOVERY_S) -> None:
        """What has been accepted by now must arrive, or be pruned, in time."""
        target = self.accepted
        seconds = self.until(
            lambda: self._gone() >= target, f"{target:,} messages accepted so far to be delivered", timeout
        )
        self.outcome.recovered_s = max(self.outcome.recovered_s or 0.0, seconds)

    def _gone(self) -> int:
        now = self.buffer.status()
        return now.delivered + now.pruned + now.dead

    def end(self) -> None:
        """Stop writing."""
        self._enough.set()
        self.join(PATIENCE_S)
        if self.is_alive():
            self.breach("a write() has not returned")
        self.outcome.accepted = self.accepted
        self.outcome.refused = dict(self.refused)

    def judge(self, last: LaneStatus, allowed: set[str], arrived: Sequence[int] | None = None) -> None:
        """Compare accounts, books and what arrived, which is what the broker has where it is not given. ``allowed``:
        the refusals that the policy may show."""
        outcome, arrived = self.outcome, numbers(self.broker.messages) if arrived is None else arrived
        outcome.delivered, outcome.pruned, outcome.dead = last.delivered, last.pruned, last.dead
        expected = {
            "accepted": self.accepted, "delivered": len(arrived), "lost": 0, "expired": 0, "purged": 0,
            "resident_messages": 0, "balanced": True, "order_violations": 0,
        }  # fmt: skip
        for name, value in expected.items():
            if getattr(last, name) != value:
                self.breach(f"the accounts say {name}={getattr(last, name)}; the books say {value}")
        if list(arrived) != sorted(set(arrived)):
            self.breach(f"{len(arrived)} arrived, of them different {len(set(arrived))}; or not in order")
        if arrived and arrived[-1] >= self.accepted:
            self.breach(f"message {arrived[-1]} arrived, and {self.accepted} were accepted")
        if unknown := set(self.refused) - allowed:
            self.breach(f"the application saw {sorted(unknown)}: {self.refusal}")
