"""Rules on the position, for providers that keep it together with the messages: exactly once."""

from __future__ import annotations

import pytest

from mbframework.message import Message, Position
from mbframework.testing.conformance.courier import Courier, attempt
from mbframework.testing.conformance.hooks import RUN
from mbframework.testing.conformance.letters import batch_of, numbered
from mbframework.testing.conformance.rules import Rules

_NONE_KEPT = "the provider keeps no position (keeps_position)"


class PositionRules(Rules):
    """See the module."""

    def test_the_position_is_told_as_it_was_stored(self) -> None:
        """None at first; then that of the last batch, by the same provider and by another."""
        batch = batch_of(numbered(7, 3, self.topic))
        with self.opened() as provider:
            first = provider.committed()
            provider.send(batch)
            then = provider.committed()
        with self.opened() as another:
            later = another.committed()
        if not self.keeps_position:
            told = [position for position in (first, then, later) if position is not None]
            assert not told, f"committed() told {told[0]}; set keeps_position = True, so that the rules on it apply"
            pytest.skip(_NONE_KEPT)
        assert first is None, f"committed() told {first} of a lane that never sent; expected None"
        assert then == later == batch.position, (
            f"committed() told {then}, and {later} when it was opened again; expected {batch.position}"
        )
        assert isinstance(later, Position), f"committed() returned a {type(later).__name__}; expected a Position"

    def test_each_lane_has_its_position(self) -> None:
        """Lanes, and buffers, do not share one."""
        self.need(self.keeps_position, _NONE_KEPT)
        with self.opened("one") as provider:
            provider.send(batch_of(numbered(1, 5, self.topic)))
        with self.opened("two") as provider:
            assert provider.committed() is None, (
                f"lane 'two' was told the position of lane 'one': {provider.committed()}"
            )
        del self._buffer_id
        with self.opened("one") as provider:
            assert provider.committed() is None, "another buffer was told this one's position: store it per buffer, too"

    def test_a_repeat_arrives_once(self) -> None:
        """A batch that is sent again, as a whole and in other portions, does not double; what is new in it arrives."""
        self.need(self.keeps_position, _NONE_KEPT)
        messages = numbered(1, 15, self.topic)
        with self.opened() as provider:
            provider.send(batch_of(messages[:10]))
            provider.send(batch_of(messages[:10]))
        with self.opened() as provider:
            provider.send(batch_of(messages[5:10]))
            provider.send(batch_of(messages[5:]))
            position = provider.committed()
        self.judge(messages, self.read(15))
        assert position == Position(16, RUN), (
            f"committed() told {position} after message 15; expected {Position(16, RUN)}"
        )

    def test_a_new_run_goes_on(self) -> None:
        """The run that is told is the one of the last batch."""
        self.need(self.keeps_position, _NONE_KEPT)
        messages = numbered(1, 4, self.topic)
        with self.opened() as provider:
            provider.send(batch_of(messages[:2]))
        with self.opened() as provider:
            provider.send(batch_of(messages[2:], run=b"another-opening!"))
            position = provider.committed()
        assert position == Position(5, b"another-opening!"), (
            f"committed() told {position}; expected that of the last batch"
        )
        self.judge(messages, self.read(4))

    def test_a_rejection_moves_no_position(self) -> None:
        """A batch with a message to be rejected leaves nothing, since its position would cover that message."""
        self.need(self.keeps_position, _NONE_KEPT)
        messages = numbered(1, 6, self.topic)
        messages[4] = self.make_rejected(messages[4])
        with self.opened() as provider:
            provider.send(batch_of(messages[:3]))
            outcome = attempt(provider, messages[3:])
            assert 5 in outcome.rejected, f"message 5 was not rejected: {outcome.said}"
            position = provider.committed()
            found = list(self.arrived())
        assert position == Position(4, RUN), f"committed() told {position}; expected 4: message 5 is not set aside yet"
        self.judge(messages[:3], found)
        assert set(outcome.undelivered) == {4, 6}, (
            f"undelivered: {outcome.undelivered}; expected 4 and 6, which were undone with the rejected message"
        )

    def test_the_position_agrees_after_a_failure(self) -> None:
        """Whatever became of the batch: what is below the position can be read, and nothing else."""
        self.need(self.keeps_position, _NONE_KEPT)
        messages = numbered(1, 20, self.topic)
        with self.opened() as provider:
            provider.send(batch_of(messages[:10]))
            self.fail_after(4)
            try:
                outcome = attempt(provider, messages[10:])
            finally:
                self.bring_up()
            assert outcome.error is not None, "send() returned although the destination failed; see fail_after()"
        with self.opened() as provider:
            self.assert_agreement(messages, provider.committed())
            Courier(provider).carry(messages[10:], self.recovery_timeout)
        self.judge(messages, self.read(20))

    def assert_agreement(self, messages: list[Message], position: Position | None) -> None:
        """Assert that exactly the messages below the position are there, each once."""
        below = [m for m in messages if position is not None and m.sequence < position.sequence]
        sent = {self.expected(message).value: message.sequence for message in messages}
        found = [sent.get(message.value) for message in self.read(len(below))]
        wanted = [message.sequence for message in below]
        until = found[-1] if found else "none"
        assert found == wanted, (
            f"committed() told {position}, and {len(found)} messages can be read, up to {until}; expected"
            f" {len(wanted)}. Messages and position must be stored in one step"
        )
