"""An ASGI program without a framework and without a lifespan: the buffer belongs to the module."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from mbframework import MessageBuffer, install_sigterm

install_sigterm()
buffer = MessageBuffer(os.environ["OUTBOX"], os.environ["DESTINATION"], mode=os.environ["MODE"])


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only http")
    number = scope["path"].removeprefix("/")
    if number:
        buffer.write("served", number)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
