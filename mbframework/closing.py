"""The ``with`` block of what must be closed.

Promise: leaving the block closes; where an exception leaves it, that one goes on, and what closing says is logged.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

_log = logging.getLogger("mbframework")


class Closing(ABC):
    """Gives a class with ``close()`` its ``with`` block."""

    @abstractmethod
    def close(self, timeout: float | None = None) -> None:
        """Let go of everything, within ``timeout`` seconds; None: what the configuration says."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise
            # The caller's own exception is the one that matters.
            _log.exception("closing after an exception failed")
