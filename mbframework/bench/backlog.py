"""The backlogs that benchmarks read and send: how many messages a frame has, and what each has beside its value."""

from __future__ import annotations

from dataclasses import dataclass

from mbframework import MessageBuffer


@dataclass(frozen=True)
class Frames:
    """``many``: messages of a frame. ``rich``: with a key and two headers."""

    many: int
    rich: bool = False

    def __str__(self) -> str:
        return f"frames of {self.many:,}" + (", key and headers" if self.rich else "")

    def write(self, buffer: MessageBuffer, value: bytes, messages: int) -> None:
        """Write so many messages."""
        key = b"key-0001" if self.rich else None
        headers = [("content-type", b"application/json"), ("trace", b"0123456789abcdef")] if self.rich else None
        if self.many == 1:
            for _ in range(messages):
                buffer.write("topic", value, key=key, headers=headers)
            return
        for first in range(0, messages, self.many):
            count = min(self.many, messages - first)
            buffer.write_many("topic", [value] * count, keys=[key] * count, headers=[headers] * count)
