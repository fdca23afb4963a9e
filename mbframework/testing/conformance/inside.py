"""The rule of rules: in a real buffer, on a lane's own thread, it all holds together."""

from __future__ import annotations

from pathlib import Path

from mbframework.buffer import MessageBuffer
from mbframework.message import Message
from mbframework.testing.conformance.hooks import Hooks
from mbframework.testing.conformance.letters import letter
from mbframework.testing.conformance.rules import Rules

_MESSAGES = 300


class BufferRules(Rules):
    """See the module."""

    def test_it_serves_a_buffer(self, tmp_path: Path) -> None:
        """Written to a buffer, before and after an outage where there can be one, all arrives; closing is clean."""
        outages = self.can(Hooks.take_down)
        messages = [letter(number, self.topic, value=b"%d" % number) for number in range(1, _MESSAGES + 1)]
        buffer = MessageBuffer(tmp_path / "buffer", self.make(), mode="buffer", retry_wait=0.05, retry_wait_max=0.5)
        try:
            self._write(buffer, messages[:100])
            buffer.flush(self.recovery_timeout)
            if outages:
                self.take_down()
            try:
                self._write(buffer, messages[100:200])
            finally:
                if outages:
                    self.bring_up()
            self._write(buffer, messages[200:])
            buffer.flush(self.recovery_timeout + self.answer_timeout)
        finally:
            buffer.close(self.answer_timeout)
        repeats = () if self.keeps_position or not outages else range(_MESSAGES + 1)
        self.judge(messages, self.read(_MESSAGES), may_repeat=repeats)

    def _write(self, buffer: MessageBuffer, messages: list[Message]) -> None:
        for message in messages:
            buffer.write(message.topic, message.value, key=message.key)
