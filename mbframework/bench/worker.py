"""A process of its own that measures what it is told, one order after the other: what is chosen when a program starts,
such as the write path, can then be measured in turns.

Orders and answers are lines of JSON. The process ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from mbframework.errors import MessageBufferError


class MeasurementFailed(MessageBufferError):
    """A benchmark cannot go on: what it measures has ended, or did not do what was asked."""


class Worker:
    """A running ``python -m mbframework.bench.MODULE``, with more in its environment. One thread."""

    def __init__(self, module: str, **environ: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{module}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environ,
            # Ctrl-C is for the one who gives orders, and ends this one too.
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # It may have ended before it had read everything.
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if kind is not None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    @property
    def ended(self) -> bool:
        """Whether it is not there any more."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def ask(self, **order: Any) -> Any:
        """The answer to an order.

        :raises MeasurementFailed: it has ended; what it said stands on stderr.
        """
        self.tell(**order)
        return self.answer()

    def tell(self, **order: Any) -> None:
        """Give an order, and do not wait."""
        assert self._process.stdin is not None
        # Where it has ended, its answer says so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MeasurementFailed(f"a process of the benchmark ({self._module}) has ended; what it said stands above")
        return json.loads(line)


def serve(obey: Callable[[dict[str, Any]], Any]) -> None:
    """The other side: answer orders until there are no more."""
    # Errors are shown, the log is not: outages are often the point.
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
