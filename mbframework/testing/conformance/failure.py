"""Rules on what fails: outages, partial failures, rejections, and what is raised then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from threading import Event

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.message import Message
from mbframework.plugins.source import resolve_url
from mbframework.testing.conformance.courier import Courier, Errand, attempt
from mbframework.testing.conformance.hooks import Hooks
from mbframework.testing.conformance.letters import batch_of, numbered
from mbframework.testing.conformance.rules import Rules, shut
from mbframework.testing.conformance.verdict import not_a_suffix

#: Batches delivered before and after an outage; messages in each.
_BATCHES, _SIZE = 5, 20


class FailureRules(Rules):
    """See the module."""

    def test_an_outage_loses_nothing(self) -> None:
        """It comes while messages are sent; afterwards all are there, in order, and only doubtful ones twice."""
        self._interrupted(self.take_down, self.bring_up, Hooks.take_down)

    def test_a_frozen_destination_loses_nothing(self) -> None:
        """``send()`` gives up within ``answer_timeout``; what follows is as after an outage."""
        self._interrupted(self.freeze, self.thaw, Hooks.freeze)

    def test_an_opening_meets_an_outage(self) -> None:
        """``open()`` tells that nobody answers, within ``answer_timeout``."""
        self.take_down()
        provider = self.make()
        try:
            began = time.monotonic()
            error = raised(lambda: provider.open(self.context()))
            if error is None:
                # Some connect at their first use.
                error = attempt(provider, numbered(1, 1, self.topic)).error
            took = time.monotonic() - began
        finally:
            shut(provider)
            self.bring_up()
        assert error is not None, "open() and send() succeeded while the destination was down"
        assert took < self.answer_timeout, f"it took {took:.1f} s to tell; expected under {self.answer_timeout:g} s"

    def test_a_partial_failure_is_told_as_it_was(self) -> None:
        """What counts as delivered is there; what does not is not, but for ``uncertain``; the rest follows."""
        messages = numbered(1, 10, self.topic)
        with self.opened() as provider:
            self.fail_after(4)
            try:
                outcome = attempt(provider, messages)
            finally:
                self.bring_up()
            assert outcome.error is not None, "send() returned although the destination failed; see fail_after()"
            domains = {message.sequence: (message.topic, message.key) for message in messages}
            wrong = not_a_suffix(outcome.undelivered, [m.sequence for m in messages], domains.__getitem__)
            assert not wrong, f"{wrong}: undelivered must be a suffix within each ordering domain"
            told = [message for message in messages if message.sequence in outcome.delivered]
            doubtful = outcome.undelivered if outcome.uncertain else ()
            self.judge(messages, self.read(len(told)), may_lack=outcome.undelivered)
            left = [message for message in messages if message.sequence in outcome.undelivered]
            courier = Courier(provider).carry(left, self.recovery_timeout)
        self.judge(messages, self.read(len(messages)), may_repeat=self._doubtful({*doubtful, *courier.doubtful}))

    def test_a_rejected_message_is_told_alone(self) -> None:
        """``rejected`` names it with a reason; the others arrive, in order, and it does not."""
        messages = numbered(1, 7, self.topic)
        messages[3] = self.make_rejected(messages[3])
        with self.opened() as provider:
            courier = Courier(provider).carry(messages, self.recovery_timeout, size=7)
        assert set(courier.rejected) == {4}, (
            f"rejected by sequence: {courier.rejected or 'nothing'}; expected message 4, which make_rejected() made,"
            " and no other"
        )
        assert str(courier.rejected[4]).strip(), "the rejection has no reason; say what is wrong with the message"
        others = messages[:3] + messages[4:]
        self.judge(others, self.read(len(others)), may_repeat=self._doubtful(courier.doubtful))

    def test_a_batch_of_rejected_messages(self) -> None:
        """All of them are told, and the provider goes on."""
        messages = [self.make_rejected(message) for message in numbered(1, 3, self.topic)]
        after = numbered(4, 2, self.topic)
        with self.opened() as provider:
            courier = Courier(provider).carry(messages, self.recovery_timeout, size=3)
            courier.carry(after, self.recovery_timeout)
        assert set(courier.rejected) == {1, 2, 3}, f"rejected: {courier.rejected or 'nothing'}; expected 1, 2 and 3"
        self.judge(after, self.read(2), may_repeat=self._doubtful(courier.doubtful))

    def test_errors_are_of_two_kinds(self) -> None:
        """``open()``, ``send()`` and ``idle()`` raise SendFailed or ProviderUnusable, in words, and sound."""
        self.need(self.can(Hooks.take_down) or self.can(Hooks.fail_after), "needs take_down(), or fail_after()")
        seen: list[BaseException] = []
        messages = numbered(1, 10, self.topic)
        with self.opened() as provider:
            if self.can(Hooks.fail_after):
                self.fail_after(4)
                try:
                    seen += _errors(lambda: provider.send(batch_of(messages)))
                finally:
                    self.bring_up()
            if self.can(Hooks.take_down):
                self.take_down()
                try:
                    for _ in range(2):
                        seen += _errors(lambda: provider.send(batch_of(messages)))
                        seen += _errors(provider.idle)
                    with_another = self.make()
                    seen += _errors(lambda: with_another.open(self.context()))
                    shut(with_another)
                finally:
                    self.bring_up()
        assert seen, "nothing was raised while the destination was down"
        for error in seen:
            wrong = unsound(error, len(messages))
            assert not wrong, f"{wrong}. Raised: {type(error).__module__}.{type(error).__name__}: {error}"

    def test_what_a_person_must_mend_is_told_so(self) -> None:
        """ProviderUnusable, with words, for ``unusable_url()``."""
        provider = resolve_url(self.unusable_url()).create(self.context())
        try:
            error = raised(lambda: provider.open(self.context()))
            if error is None:
                error = raised(lambda: provider.send(batch_of(numbered(1, 1, self.topic))))
        finally:
            shut(provider)
        assert isinstance(error, (ProviderUnusable, ConfigurationError)), (
            f"unusable_url() gave {error!r}; expected ProviderUnusable, by which the lane keeps all and calls a person"
        )
        assert str(error).strip(), "the error has no text; say what to change"

    def _interrupted(self, stop: Callable[[], None], go_on: Callable[[], None], hook: Callable[..., object]) -> None:
        self.need(self.can(hook), "needs take_down() and bring_up(), or freeze() and thaw()")
        enough, sent = Event(), list[Message]()
        with self.opened() as provider:
            courier = Courier(provider)
            errand = Errand(lambda: self._keep_sending(courier, sent, enough))
            try:
                courier.wait_until(_delivered(_BATCHES), self.answer_timeout, "the first batches")
                stop()
                try:
                    courier.wait_until(
                        lambda c: bool(c.failures), self.answer_timeout, "a failure after the outage began"
                    )
                finally:
                    go_on()
                due = len(courier.delivered) // _SIZE + _BATCHES
                courier.wait_until(_delivered(due), self.recovery_timeout, "delivery after the outage")
            finally:
                enough.set()
                ended = errand.over(self.answer_timeout)
            assert ended, f"send() has not returned within {self.answer_timeout:g} s after the outage"
            errand.result(0, "send()")
        assert not courier.rejected, f"an outage rejects nothing; rejected: {courier.rejected}"
        self.judge(sent, self.read(len(sent)), may_repeat=self._doubtful(courier.doubtful))

    def _keep_sending(self, courier: Courier, sent: list[Message], enough: Event) -> None:
        while not enough.is_set():
            portion = numbered(len(sent) + 1, _SIZE, self.topic)
            sent += portion
            courier.carry(portion, self.answer_timeout + self.recovery_timeout)

    def _doubtful(self, sequences: set[int]) -> set[int]:
        """What may arrive twice: nothing, where the position says what is there."""
        return set() if self.keeps_position else sequences


def raised(call: Callable[[], object]) -> BaseException | None:
    """What the call raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  (whatever it is, a rule looks at it)
        return error
    return None


def unsound(error: BaseException, count: int) -> str:
    """What is wrong with an error about a batch of ``count`` messages; "" where nothing is. Pure."""
    if not isinstance(error, (SendFailed, ProviderUnusable)):
        return "expected SendFailed or ProviderUnusable; anything else is logged as a defect of the provider"
    if not str(error).strip():
        return "the error has no text; say what happened, what was expected and what to do next"
    if not isinstance(error, SendFailed):
        return ""
    undelivered: Sequence[int] = () if error.undelivered is None else error.undelivered
    rejected = error.rejected
    if not all(isinstance(index, int) and 0 <= index < count for index in (*undelivered, *rejected)):
        return f"undelivered and rejected are indices into the batch, from 0 to {count - 1}"
    if set(undelivered) & set(rejected):
        return "a message is undelivered and rejected at once; expected one of them"
    wait = error.retry_after
    if wait is not None and not (isinstance(wait, (int, float)) and math.isfinite(wait) and wait >= 0):
        return f"retry_after is {wait!r}; expected seconds, or None"
    return ""


def _errors(call: Callable[[], object]) -> list[BaseException]:
    error = raised(call)
    return [] if error is None else [error]


def _delivered(batches: int) -> Callable[[Courier], bool]:
    return lambda courier: len(courier.delivered) >= batches * _SIZE
