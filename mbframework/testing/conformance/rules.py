"""What the rules have in common: an open provider, and reading until what is expected has arrived."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event

import pytest

from mbframework.message import Message
from mbframework.provider import Provider
from mbframework.testing.conformance import verdict
from mbframework.testing.conformance.hooks import Arrived, Hooks

#: Seconds given to close() where the rule is about something else.
CLOSE_S = 5.0
_LOOK_S = 0.02


def shut(provider: Provider) -> None:
    """Close, where the rule is about something else."""
    # A lane logs what close() raises, and goes on.
    with suppress(Exception):
        provider.close(CLOSE_S)


class Rules(Hooks):
    """The base of all rules."""

    @contextmanager
    def opened(self, lane: str = "main", stopping: Event | None = None) -> Iterator[Provider]:
        """A new provider, open, and closed afterwards."""
        provider = self.make()
        try:
            provider.open(self.context(lane, stopping))
            yield provider
        finally:
            shut(provider)

    @property
    def topic(self) -> str:
        """The topic of whatever is not about topics."""
        return self.topics[0]

    def read(self, count: int) -> list[Arrived]:
        """What arrived, as soon as there are ``count`` messages, and at the end of ``reading_timeout`` in any case."""
        give_up = time.monotonic() + self.reading_timeout
        while len(found := list(self.arrived())) < count and time.monotonic() < give_up:
            time.sleep(_LOOK_S)
        return found

    def judge(
        self,
        messages: Sequence[Message],
        found: Sequence[Arrived],
        *,
        may_repeat: Collection[int] = (),
        may_lack: Collection[int] = (),
    ) -> None:
        """Assert that these messages, told apart by their values, are there: each once, and in order."""
        sent = {self.expected(message).value: message.sequence for message in messages}
        domains = {message.sequence: (message.topic, message.key) for message in messages}
        findings = verdict.examine(sent, [one.value for one in found], domains.__getitem__)
        wrong = verdict.in_words(findings, may_repeat=may_repeat, may_lack=may_lack)
        assert not wrong, f"of {len(messages)} messages, by sequence: {wrong}"

    def expected(self, message: Message) -> Arrived:
        """What becomes of an ordinary message."""
        expected = self.kept(message)
        assert expected is not None, f"kept() says that {message} is rejected; expected it to take ordinary messages"
        return expected

    def without_url(self) -> bool:
        """Whether the author makes the provider without a URL."""
        return type(self).url is Hooks.url

    def need(self, have: object, reason: str) -> None:
        """Skip where the author does not supply what the rule needs."""
        if not have:
            pytest.skip(reason)

    def can(self, hook: Callable[..., object]) -> bool:
        """Whether the author supplies an optional method, as ``self.can(Hooks.freeze)``."""
        return getattr(type(self), hook.__name__) is not hook
