from __future__ import annotations

from pathlib import Path

import pytest

from mbframework import MessageBuffer

COUNT = 4000


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """4,000 messages in ten segments; value i begins with the number i, and sequence i + 1 holds it."""
    with MessageBuffer(tmp_path / "outbox", segment_size="64KiB", total_size="4MiB") as buffer:
        for number in range(COUNT):
            buffer.write("t", b"%05d" % number + b"x" * 95)
    return tmp_path / "outbox"
