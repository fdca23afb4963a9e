"""Rules on what a provider tells of itself: destination, facts, health, its largest message."""

from __future__ import annotations

from collections.abc import Mapping

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.plugins.url import parse_url
from mbframework.provider import Health
from mbframework.testing.conformance.courier import Courier
from mbframework.testing.conformance.failure import raised
from mbframework.testing.conformance.hooks import Hooks
from mbframework.testing.conformance.letters import numbered
from mbframework.testing.conformance.rules import Rules


class FactRules(Rules):
    """See the module."""

    def test_the_destination_is_one_and_the_same(self) -> None:
        """A text that two providers agree on, with no host in it."""
        names = []
        for _ in range(2):
            with self.opened() as provider:
                names.append(provider.destination())
        name = names[0]
        assert isinstance(name, str), f"destination() returned {name!r}; expected a text"
        assert len(set(names)) == 1, f"destination() told {names} of one destination; a backlog would be held back"
        hosts = () if self.without_url() else parse_url(self.url()).hosts
        # A bare name, as in "fake://orders", may be that of the destination itself.
        named = [host for host in hosts if host in name and ("." in host or ":" in host)]
        assert not named, (
            f"destination() is {name!r}, which names the host {named[0]!r}: hosts change, destinations stay"
        )

    def test_facts_are_texts(self) -> None:
        """``describe()`` maps texts to texts, before and after a send."""
        with self.opened() as provider:
            facts = [provider.describe()]
            Courier(provider).carry(numbered(1, 1, self.topic), self.recovery_timeout)
            facts.append(provider.describe())
        for one in facts:
            assert isinstance(one, Mapping), f"describe() returned {one!r}; expected a mapping of texts to texts"
            wrong = [
                (name, value) for name, value in one.items() if not (isinstance(name, str) and isinstance(value, str))
            ]
            assert not wrong, f"describe() holds {wrong[0]!r}; expected texts"
        assert set(facts[0]) == set(facts[1]), f"describe() names {sorted(facts[0])}, after a send {sorted(facts[1])}"

    def test_the_largest_message_is_a_number(self) -> None:
        """``max_message_bytes`` after ``open()``: a positive number, or None."""
        with self.opened() as provider:
            limit: object = provider.max_message_bytes
        assert limit is None or (isinstance(limit, int) and limit > 0), (
            f"max_message_bytes is {limit!r}; expected bytes"
        )

    def test_a_check_tells_that_all_is_well(self) -> None:
        """``check()`` on a provider that was not opened."""
        health = self.make().check()
        assert isinstance(health, Health), f"check() returned {health!r}; expected a mbframework.provider.Health"
        assert health.ok, f"check() says {health.detail!r} although all is well"
        assert not self.arrived(), "check() left a message at the destination"

    def test_a_check_tells_of_an_outage(self) -> None:
        """Not ok, or SendFailed or ProviderUnusable."""
        self.need(self.can(Hooks.take_down), "needs take_down() and bring_up()")
        self.take_down()
        said: list[object] = []
        try:
            provider = self.make()
            error = raised(lambda: said.append(provider.check()))
        finally:
            self.bring_up()
        told = isinstance(error, (SendFailed, ProviderUnusable)) or (
            error is None and isinstance(said[0], Health) and not said[0].ok and bool(said[0].detail.strip())
        )
        assert told, f"check() while the destination was down: {error or said[0]!r}; expected not ok, with words"
