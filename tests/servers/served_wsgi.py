"""A WSGI program: what is posted is written, and the answer says so once it is accepted.

With ``--preload`` this runs in gunicorn's master, before the workers are forked, else in each of them.
Without a destination the workers only write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from mbframework import MessageBuffer

buffer = MessageBuffer(os.environ["OUTBOX"], os.environ["DESTINATION"] or None, mode="always")


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    number = environ["PATH_INFO"].removeprefix("/")
    if number:
        buffer.write("served", number)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
