"""What httpx's transport logs of our requests holds none of our secrets, which endpoints may send back.

Others in the process may use httpx as well: only what is logged within :func:`discreet`, on the same thread, is
touched.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mbframework.plugins.secret import scrub

_ours = threading.local()


class _Discreet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if secrets := getattr(_ours, "secrets", ()):
            record.msg, record.args = scrub(record.getMessage(), secrets), None
        return True


# The library's loggers that are given headers.
for _name in ("httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(_Discreet())


@contextmanager
def discreet(secrets: Sequence[str]) -> Iterator[None]:
    """Inside, on this thread, the log has none of these."""
    _ours.secrets = secrets
    try:
        yield
    finally:
        _ours.secrets = ()
