"""A headless Chromium, driven through its DevTools protocol, for tests of the browser view."""

# Small files, and a process that is started once.
# ruff: noqa: ASYNC220, ASYNC240

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

#: What is selected in the terminal of the page, as its own copy command gives it.
_COPY = """(() => {
  const data = new DataTransfer();
  document.querySelector(".xterm").dispatchEvent(
    new ClipboardEvent("copy", {clipboardData: data, bubbles: true, cancelable: true}));
  return data.getData("text/plain");
})()"""


class Tab:
    """One tab: its requests are kept in ``requests``, what it says on its console in ``complaints``."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listener = asyncio.create_task(self._listen())

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, 60)

    async def go(self, url: str) -> None:
        await self.ask("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        found = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    async def until(self, expression: str, timeout: float = 60.0) -> None:
        """Wait for an expression to be true."""
        deadline = time.monotonic() + timeout
        while await self.value(expression) is not True:
            assert time.monotonic() < deadline, f"never true: {expression}; the page: {await self.text()}"
            await asyncio.sleep(0.05)

    async def text(self) -> str:
        """The text of the page itself."""
        return str(await self.value("document.body.innerText"))

    async def screen(self) -> str:
        """What the terminal in the page shows: all of it is selected, as a person would, and copied."""
        width, height = await self.value("[window.innerWidth, window.innerHeight]")
        at = {"button": "left", "clickCount": 1, "modifiers": 8}
        await self.ask("Input.dispatchMouseEvent", type="mousePressed", x=1, y=1, **at)
        await self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=width - 2, y=height - 2, **at, buttons=1)
        await self.ask("Input.dispatchMouseEvent", type="mouseReleased", x=width - 2, y=height - 2, **at)
        return str(await self.value(_COPY))

    async def shows(self, word: str, timeout: float = 60.0) -> str:
        """Wait until the terminal in the page shows a word; the whole screen."""
        deadline = time.monotonic() + timeout
        while word not in (screen := await self.screen()):
            assert time.monotonic() < deadline, f"{word!r} is never shown, but:\n{screen}\n{self.complaints}"
            await asyncio.sleep(0.1)
        return screen

    async def picture(self, path: Path) -> None:
        """A screenshot as PNG."""
        found = await self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def hosts(self) -> set[str]:
        """All that the page asked for something, host and port."""
        return {urlsplit(url).netloc for url in self.requests if not url.startswith(("data:", "about:", "chrome"))}

    async def _listen(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if "error" in told:
                    answer.set_exception(RuntimeError(told["error"]["message"]))
                else:
                    answer.set_result(told["result"])
                continue
            facts = told.get("params", {})
            if told["method"] == "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            elif told["method"] == "Network.webSocketCreated":
                self.requests.append(facts["url"])
            elif told["method"] == "Log.entryAdded":
                self.complaints.append(facts["entry"]["text"])

    async def close(self) -> None:
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener
        await self._socket.close()


class Chromium:
    """A running browser."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session, self._address = session, address
        self._tabs: list[Tab] = []

    async def tab(self) -> Tab:
        """A new tab, empty, with its requests recorded from the first one on."""
        async with self._session.put(f"http://{self._address}/json/new?about:blank") as answer:
            url = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        tab = Tab(await self._session.ws_connect(url, max_msg_size=0))
        self._tabs.append(tab)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await tab.ask(f"{domain}.enable")
        return tab

    async def close(self) -> None:
        for tab in self._tabs:
            await tab.close()


@contextlib.asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Chromium]:
    """A browser with a profile of its own; it and its children are gone afterwards."""
    assert PROGRAM is not None
    arguments = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--window-size=1200,800"]
    arguments += ["--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
    arguments += ["--disable-component-update", "--disable-sync", "--disable-extensions"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [PROGRAM, *arguments, "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = await _port(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            browser = Chromium(session, f"127.0.0.1:{port}")
            try:
                yield browser
            finally:
                await browser.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
            return int(file.read_text().splitlines()[0])
        assert process.poll() is None, f"chromium ended with exit status {process.returncode}"
        assert time.monotonic() < deadline, "chromium does not say where it listens"
        await asyncio.sleep(0.05)
