"""One browser tab: its dashboard process, and what goes between the two.

Promises
--------
- No shell: the process is started from a list of arguments, and ends with the server (see :mod:`mbtui.web_child`).
- :meth:`Session.stop` comes back within :data:`PATIENCE_S` seconds or so, with the process gone and reaped.
- What the process says on stderr is told line by line, printable, on the server's stderr.

It rests on parts of textual-serve that are not public: the range of its versions is pinned in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from mbframework.cli.terminal import narrate

PATIENCE_S = 2.0
_SMALLEST, _LARGEST = 1, 1000


class Session(AppService):
    """The process behind ``websocket``."""

    def __init__(self, arguments: Sequence[str], websocket: web.WebSocketResponse, downloads: DownloadManager) -> None:
        super().__init__(
            "",
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=self._leave,
            download_manager=downloads,
        )
        self._arguments = arguments
        self._websocket = websocket
        self._listener: asyncio.Task[None] | None = None

    async def _leave(self) -> None:
        """The process says that it ends."""
        await self._websocket.close()

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        """In place of the shell that the base class starts."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mbtui.web_child", str(os.getpid()), *self._arguments),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(width, height),
        )
        assert process.stdin is not None
        assert process.stderr is not None
        self._process, self._stdin = process, process.stdin
        self._listener = asyncio.create_task(_tell(process.stderr))
        # The base class would print what it reads there as it is.
        process.stderr = asyncio.StreamReader()
        process.stderr.feed_eof()
        return process

    async def run(self) -> None:
        """The process's output to the browser, until one of the two ends."""
        try:
            await super().run()
        except (ConnectionError, RuntimeError):
            # The browser has gone in the middle of a message.
            pass
        finally:
            await self._websocket.close()

    async def serve(self, size: tuple[int, int]) -> None:
        """Start the process, and hand on what the browser sends until it goes away."""
        await self.start(*size)
        async for message in self._websocket:
            if message.type != WSMsgType.TEXT:
                continue
            try:
                await self._obey(json.loads(message.data))
            except (ValueError, TypeError, KeyError, IndexError, RecursionError):
                # Not our page; there is nothing to say to it.
                await self._websocket.close()
                return

    async def _obey(self, order: object) -> None:
        if not isinstance(order, list):
            raise TypeError("expected a list")
        kind = order[0]
        if kind == "stdin":
            await self.send_bytes(str(order[1]).encode(errors="replace"))
        elif kind == "resize":
            await self.set_terminal_size(*clamped(order[1]["width"], order[1]["height"]))
        elif kind == "ping":
            await self._websocket.send_json(["pong", order[1]])
        elif kind == "blur":
            await self.blur()
        elif kind == "focus":
            await self.focus()

    async def stop(self) -> None:
        """Ask the process to quit, wait for a moment, kill it. A second call does nothing."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(PATIENCE_S):
                await self.send_meta({"type": "quit"})
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        self._process = None
        for task in (self._task, self._listener):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._task = self._listener = None
        await self._download_manager.cancel_app_downloads(app_service_id=self.app_service_id)
        if self._stdin is not None:
            self._stdin.close()


def clamped(width: object, height: object) -> tuple[int, int]:
    """A size in cells that a screen can have.

    :raises ValueError, TypeError: it is no number.
    """
    if not isinstance(width, int | str) or not isinstance(height, int | str):
        raise TypeError("expected a width and a height in cells")
    return max(_SMALLEST, min(_LARGEST, int(width))), max(_SMALLEST, min(_LARGEST, int(height)))


async def _tell(errors: asyncio.StreamReader) -> None:
    with contextlib.suppress(ValueError):  # a line without an end
        async for line in errors:
            narrate(line.decode(errors="replace").rstrip())
