"""Which descriptors this process has open: for tests that nothing is left behind."""

from __future__ import annotations

import contextlib
import os


def open_descriptors() -> set[tuple[int, str]]:
    """Their numbers and what they lead to; empty where the system does not tell."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            # The descriptor of this very listing is gone again.
            with contextlib.suppress(FileNotFoundError):
                found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found
