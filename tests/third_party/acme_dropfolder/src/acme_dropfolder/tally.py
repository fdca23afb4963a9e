"""The observer ``acme-tally``: how many messages were delivered, in a file beside the buffer's directory."""

from __future__ import annotations

from pathlib import Path

from mbframework.plugins import hookimpl

MBFRAMEWORK_API = 1

_delivered: dict[str, int] = {}


@hookimpl
def mbframework_batch_delivered(directory: str, messages: int) -> None:
    _delivered[directory] = _delivered.get(directory, 0) + messages
    Path(f"{directory}.tally").write_text(f"{_delivered[directory]}\n")
