"""What the provider ``redis`` stored, read by a plain client."""

from __future__ import annotations

from typing import Any

import redis
from mbframework_redis.entry import Entry, decode


def client(port: int, **options: Any) -> redis.Redis:
    """A plain client that shows the fields of an entry as they are; redis-py's own mapping drops repeated ones."""
    made = redis.Redis(port=port, **options)
    made.set_response_callback("XRANGE", lambda answer, **_: answer)
    return made


def entries(port: int, stream: str, **options: Any) -> list[Entry]:
    """All entries of a stream, in order."""
    reader = client(port, **options)
    try:
        answer: Any = reader.xrange(stream)
        return [decode(zip(fields[::2], fields[1::2], strict=True)) for _, fields in answer]
    finally:
        reader.close()
