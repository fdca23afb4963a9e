"""Rules on opening and closing: again, after failures, while stuck, when the buffer stops; nothing is left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from threading import Event

from mbframework.provider import Provider
from mbframework.testing.conformance.courier import Courier, Errand, attempt
from mbframework.testing.conformance.failure import raised
from mbframework.testing.conformance.hooks import Hooks
from mbframework.testing.conformance.letters import numbered
from mbframework.testing.conformance.rules import CLOSE_S, Rules, shut
from mbframework.testing.descriptors import open_descriptors

#: Seconds that a close in progress gets on top of its timeout.
_SLACK_S = 1.0
#: Seconds after which a call that has not returned counts as stuck.
_STUCK_S = 0.5


class LifecycleRules(Rules):
    """See the module."""

    def test_close_may_be_called_twice(self) -> None:
        """Also after ``send()``."""
        with self.opened() as provider:
            Courier(provider).carry(numbered(1, 3, self.topic), self.recovery_timeout)
            provider.close(CLOSE_S)
            error = raised(lambda: provider.close(CLOSE_S))
            assert error is None, f"the second close() raised {error!r}; expected it to do nothing"

    def test_open_again_after_close(self) -> None:
        """The same object goes on where it was."""
        messages = numbered(1, 9, self.topic)
        provider = self.make()
        try:
            for start in (0, 3, 6):
                error = raised(lambda: provider.open(self.context()))
                assert error is None, f"open() after close() raised {error!r}"
                Courier(provider).carry(messages[start : start + 3], self.recovery_timeout)
                shut(provider)
        finally:
            shut(provider)
        self.judge(messages, self.read(9))

    def test_close_after_a_failed_open(self) -> None:
        """It raises nothing, also twice."""
        self.take_down()
        try:
            provider = self.make()
            raised(lambda: provider.open(self.context()))
            error = raised(lambda: provider.close(CLOSE_S)) or raised(lambda: provider.close(CLOSE_S))
            assert error is None, f"close() after a failed open() raised {error!r}"
        finally:
            self.bring_up()

    def test_open_again_after_a_failed_open(self) -> None:
        """The same object connects when the destination is back."""
        self.take_down()
        provider = self.make()
        messages = numbered(1, 3, self.topic)
        try:
            try:
                raised(lambda: provider.open(self.context()))
                shut(provider)
            finally:
                self.bring_up()
            self._open_within(provider, self.recovery_timeout)
            Courier(provider).carry(messages, self.recovery_timeout)
        finally:
            shut(provider)
        self.judge(messages, self.read(3))

    def test_close_returns_while_send_is_stuck(self) -> None:
        """Called from another thread it returns within its timeout; the stuck call ends at the latest when it can."""
        timeout = 1.0
        with self.opened() as provider:
            self.freeze()
            try:
                errand = Errand(lambda: attempt(provider, numbered(1, 3, self.topic)))
                assert not errand.over(_STUCK_S), "send() returned from a frozen destination; see freeze()"
                closing = Errand(lambda: provider.close(timeout))
                closed = closing.over(timeout + _SLACK_S)
            finally:
                self.thaw()
            assert closed, f"close({timeout:g}) has not returned after {timeout + _SLACK_S:g} s while send() was stuck"
            closing.result(0, "close()")
            errand.result(self.answer_timeout, "send(), closed and with its destination back,")

    def test_send_ends_when_the_buffer_stops(self) -> None:
        """Within ``stopping_timeout`` once ``context.stopping`` is set, whatever it waits for."""
        stopping = Event()
        with self.opened(stopping=stopping) as provider:
            self._stops(stopping, lambda: attempt(provider, numbered(1, 3, self.topic)), "send()")

    def test_open_ends_when_the_buffer_stops(self) -> None:
        """So does ``open()``."""
        stopping = Event()
        provider = self.make()
        try:
            self._stops(stopping, lambda: raised(lambda: provider.open(self.context(stopping=stopping))), "open()")
        finally:
            shut(provider)

    def test_nothing_is_left_behind(self) -> None:
        """No thread and no descriptor after ``close()``, nor after an opening that failed."""
        self._use()  # what a library sets up once for the process does not count
        before = _possessions()
        for _ in range(3):
            self._use()
        left = _left(before, self.parting_timeout)
        assert not left, f"close() left behind: {', '.join(left)}"
        if self.can(Hooks.take_down):
            self.take_down()
            try:
                before = _possessions()
                for _ in range(3):
                    self._fail_to_open()
                left = _left(before, self.parting_timeout)
            finally:
                self.bring_up()
            assert not left, f"close() after a failed open() left behind: {', '.join(left)}"

    def _use(self) -> None:
        with self.opened() as provider:
            # Its outcome is no matter here.
            attempt(provider, numbered(1, 3, self.topic))

    def _fail_to_open(self) -> None:
        provider = self.make()
        raised(lambda: provider.open(self.context()))
        shut(provider)

    def _open_within(self, provider: Provider, timeout: float) -> None:
        give_up = time.monotonic() + timeout
        while (error := raised(lambda: provider.open(self.context()))) is not None:
            shut(provider)
            assert time.monotonic() < give_up, f"open() fails {timeout:g} s after the outage: {error!r}"
            time.sleep(0.05)

    def _stops(self, stopping: Event, call: Callable[[], object], what: str) -> None:
        frozen = self.can(Hooks.freeze)
        self.need(frozen or self.can(Hooks.take_down), "needs freeze() and thaw(), or take_down() and bring_up()")
        (self.freeze if frozen else self.take_down)()
        try:
            errand = Errand(call)
            errand.over(_STUCK_S)
            stopping.set()
            ended = errand.over(self.stopping_timeout)
        finally:
            (self.thaw if frozen else self.bring_up)()
        came = errand.over(self.answer_timeout)
        assert ended, (
            f"{what} has not returned {self.stopping_timeout:g} s after the buffer stopped"
            f"{'' if came else ', nor after the destination was back'}: wait on context.stopping, in short portions"
        )


def _possessions() -> tuple[set[threading.Thread], set[tuple[int, str]]]:
    gc.collect()
    return set(threading.enumerate()), open_descriptors()


def _left(before: tuple[set[threading.Thread], set[tuple[int, str]]], timeout: float) -> list[str]:
    """Threads and descriptors that were not there before and do not go away within ``timeout`` seconds, in words."""
    give_up = time.monotonic() + timeout
    while True:
        threads, files = _possessions()
        left = [f"thread {thread.name!r}" for thread in threads - before[0]]
        left += [f"descriptor {number} ({target})" for number, target in sorted(files - before[1])]
        if not left or time.monotonic() > give_up:
            return left
        time.sleep(0.02)
