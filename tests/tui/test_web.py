"""The browser view: who is let in, what is asked of whom, what is shown, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from mbframework_fake.provider import FakeProvider
from mbtui.web_access import TOKEN_LIFE_S, Access
from mbtui.web_session import clamped

from mbframework import MessageBuffer
from tests.tui.chromium import PROGRAM, chromium


@dataclass
class Served:
    """A server that runs, and the link that it printed."""

    process: subprocess.Popen[str]
    link: str

    @property
    def place(self) -> str:
        """Host and port."""
        return urlsplit(self.link).netloc

    @property
    def root(self) -> str:
        return f"http://{self.place}"

    @property
    def token(self) -> str:
        return self.link.partition("token=")[2]

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal: exit status, the rest of stdout, stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


Serve = Callable[..., Served]


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[tuple[MessageBuffer, FakeProvider]]:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "outbox", provider, retry_wait_max="200ms") as made:
        yield made, provider


@pytest.fixture
def serve(buffer: tuple[MessageBuffer, FakeProvider]) -> Iterator[Serve]:
    """Serves the buffer, on a free port."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str) -> Served:
            process = subprocess.Popen(
                [sys.executable, "-m", "mbtui", "--web", "--port", "0", *arguments, buffer[0].directory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(_finish, process)
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                assert selector.select(60), "it prints no link"
            return Served(process, process.stdout.readline().strip())

        yield begin


def _finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


async def _enter(session: aiohttp.ClientSession, served: Served) -> None:
    async with session.get(served.link) as answer:
        assert answer.status == 200, await answer.text()


def _session() -> aiohttp.ClientSession:
    # Hosts that are addresses have cookies, too.
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


@contextlib.asynccontextmanager
async def _tab(
    session: aiohttp.ClientSession, served: Served, told: asyncio.Queue[str] | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A websocket as the page opens it, once the dashboard draws; it is read on, as the server's pings are answered
    by who reads. What it says to the page, not to the terminal in it, is ``told``."""
    place, headers = f"ws://{served.place}/ws?width=100&height=30", {"Origin": served.root}
    async with session.ws_connect(place, headers=headers) as websocket:
        await _drawn(websocket)
        reading = asyncio.create_task(_read(websocket, told))
        try:
            yield websocket
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(websocket: aiohttp.ClientWebSocketResponse, told: asyncio.Queue[str] | None) -> None:
    async for message in websocket:
        if told is not None and message.type is aiohttp.WSMsgType.TEXT:
            told.put_nowait(message.data)


async def _drawn(websocket: aiohttp.ClientWebSocketResponse) -> None:
    seen = b""
    async with asyncio.timeout(60):
        while b"LIVE" not in seen:
            seen += await websocket.receive_bytes()


def _arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _until(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_token_is_good_once_and_not_for_ever() -> None:
    access = Access(8000)
    token, late = access.new_token(0.0), access.new_token(0.0)
    assert token != late
    assert access.enter("", 1.0) is None
    assert access.enter(token[:-1], 1.0) is None
    session = access.enter(token, 1.0)
    assert session is not None
    assert session != token
    assert access.enter(token, 1.0) is None
    assert access.enter(late, TOKEN_LIFE_S) is None


@pytest.mark.parametrize(
    "headers, welcome",
    [
        ({}, True),
        ({"Host": "localhost:8000"}, True),
        ({"Origin": "http://127.0.0.1:8000"}, True),
        ({"Host": "rebound.example:8000"}, False),
        ({"Host": "127.0.0.1:8001"}, False),
        ({"Host": "127.0.0.1"}, False),
        ({"Host": ""}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:8001"}, False),
        ({"Origin": "http://localhost:8000"}, False),
        ({"Origin": "null"}, False),
        ({"Cookie": ""}, False),
        ({"Cookie": "mbtui-8000="}, False),
        ({"Cookie": "mbtui-8000=\udcff; ;;=,"}, False),
    ],
)
def test_who_is_refused(headers: dict[str, str], welcome: bool) -> None:
    access = Access(8000)
    session = access.enter(access.new_token(0.0), 0.0)
    sent = {"Host": "127.0.0.1:8000", "Cookie": f"other=1; mbtui-8000={session}", **headers}
    assert (access.refusal(sent, websocket=False, entering=False) == "") == welcome
    # A websocket has to say where it comes from.
    assert (access.refusal(sent, websocket=True, entering=False) == "") == (welcome and "Origin" in headers)


@pytest.mark.parametrize("size", [(0, 5), (-3, 10**9), ("80", "24")])
def test_a_size_is_one_that_a_screen_can_have(size: tuple[object, object]) -> None:
    assert all(1 <= each <= 1000 for each in clamped(*size))


def test_nothing_is_to_be_had_without_the_cookie(serve: Serve) -> None:
    served = serve()

    async def attempts() -> None:
        async with _session() as session:
            for path in (
                "/",
                "/static/js/textual.js",
                "/static/",
                "/page/page.js",
                "/download/x",
                "/nowhere",
                "/?token=",
                "/?token=x",
            ):
                async with session.get(served.root + path) as answer:
                    assert answer.status == 403, path
                    assert "script" not in await answer.text()
            for headers in ({"Origin": served.root}, {}):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await session.ws_connect(f"ws://{served.place}/ws", headers=headers)
            # Neither of these uses the token up: no person has seen a page.
            async with session.head(served.link) as answer:
                assert answer.status == 403
            async with session.get(served.link, headers={"Sec-Purpose": "prefetch;prerender"}) as answer:
                assert answer.status == 403
            async with session.get(served.link, headers={"Host": "rebound.example"}) as answer:
                assert answer.status == 403
            async with session.get(served.link) as answer:
                cookie = answer.headers["Set-Cookie"]
                assert served.token not in cookie
                assert "HttpOnly" in cookie
                assert "SameSite=Strict" in cookie
            async with _session() as other, other.get(served.link) as answer:
                assert answer.status == 403, "the token is used"
            assert served.children() == []

    asyncio.run(attempts())
    status, out, err = served.end(signal.SIGINT)
    assert status == 0
    assert served.token not in out + err
    assert "Traceback" not in err


def test_the_page_lets_the_browser_ask_nobody_else(serve: Serve) -> None:
    served = serve()

    async def look() -> None:
        async with _session() as session:
            await _enter(session, served)
            async with session.get(served.root + "/") as answer:
                page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "script-src 'self';" in policy
            for source in re.findall(r"(?:src|href)=\"([^\"]*)\"", page):
                assert source.startswith(("/static/", "/page/", "data:"))
                if source.startswith("/"):
                    async with session.get(served.root + source) as answer:
                        assert answer.status == 200, source
            async with session.get(served.root + "/nowhere") as answer:
                assert answer.status == 404
            for directory in ("/static/", "/static/js", "/page/"):
                async with session.get(served.root + directory) as answer:
                    assert answer.status in (403, 404), directory
                    assert "textual.js" not in await answer.text()
            for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": served.root, "Host": "evil.example"}):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await session.ws_connect(f"ws://{served.place}/ws", headers=headers)

    asyncio.run(look())


def test_only_127_0_0_1_is_served(serve: Serve) -> None:
    port = urlsplit(serve().link).port
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()


@pytest.mark.parametrize("arguments, told", [((), False), (("--write",), True)])
def test_it_reads_only_unless_told(serve: Serve, arguments: tuple[str, ...], told: bool) -> None:
    served = serve(*arguments)

    async def look() -> None:
        async with _session() as session:
            await _enter(session, served)
            said: asyncio.Queue[str] = asyncio.Queue()
            async with _tab(session, served, said) as tab:
                (child,) = served.children()
                assert ("--write" in _arguments(child)) is told
                # f8: the picture goes to the browser, and never into a directory of the server's.
                await tab.send_json(["stdin", "\x1b[19~"])
                while (message := json.loads(await asyncio.wait_for(said.get(), 60)))[0] != "deliver_file_start":
                    pass
                async with session.get(f"{served.root}/download/{message[1]}") as answer:
                    assert answer.status == 200
                    assert answer.headers["Content-Disposition"] == "attachment; filename=mbtui.svg"
                    assert "<svg" in await answer.text()
                assert not [name for name in os.listdir(f"/proc/{child}/cwd") if name.endswith(".svg")]

    asyncio.run(look())


#: Each costs a dashboard: those behind the first are sent with ``MBFRAMEWORK_TEST_KIT=long``.
NONSENSE = ["{", "[1]", '["resize", {"width": "x", "height": 1}]', '["stdin", "\\ud800"]', "", "{}", "[]", '["resize"]']
if os.environ.get("MBFRAMEWORK_TEST_KIT") != "long":
    del NONSENSE[4:]


def test_nonsense_from_the_browser_ends_that_tab_at_most(serve: Serve) -> None:
    served = serve()

    async def send() -> None:
        async with _session() as session:
            await _enter(session, served)
            for sent in NONSENSE:
                async with _tab(session, served) as websocket:
                    await websocket.send_str(sent)
            async with _tab(session, served):
                pass

    asyncio.run(send())
    status, _, err = served.end(signal.SIGINT)
    assert status == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_process_outlives_the_server(
    serve: Serve, number: signal.Signals, promised: Callable[[float], float]
) -> None:
    served = serve()

    async def connected() -> None:
        async with _session() as session:
            await _enter(session, served)
            async with _tab(session, served), _tab(session, served):
                children = served.children()
                assert len(children) == 2
                begun = time.monotonic()
                served.process.send_signal(number)
                await asyncio.to_thread(served.process.wait, 60)
                assert time.monotonic() - begun < promised(6)
                await asyncio.to_thread(_until, lambda: all(map(_gone, children)), f"{children} are left")

    asyncio.run(connected())
    expected = {signal.SIGKILL: -9, signal.SIGINT: 0}.get(number, 128 + number)
    assert served.process.returncode == expected
    assert served.process.stderr is not None
    assert "Traceback" not in served.process.stderr.read()


def test_a_tab_that_is_closed_ends_its_process_alone(serve: Serve) -> None:
    served = serve()

    async def connected() -> None:
        async with _session() as session:
            await _enter(session, served)
            async with _tab(session, served):
                (stays,) = served.children()
                async with _tab(session, served):
                    (goes,) = set(served.children()) - {stays}
                await asyncio.to_thread(_until, lambda: served.children() == [stays], f"{goes} is left")

    asyncio.run(connected())


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mbtui.web", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False)


def test_a_taken_port_is_told_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = _run("--port", str(port), str(tmp_path))
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"port {port} of 127.0.0.1 is taken" in ended.stderr
    assert "--port 0" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_port_is_told_in_words() -> None:
    ended = _run("--port", "70000", ".")
    assert ended.returncode == 2
    assert "expected 0 to 65535" in ended.stderr


@pytest.fixture
def browser_folder(tmp_path: Path) -> Path:
    if PROGRAM is None:
        pytest.skip("no Chromium is installed; run: apt-get install -y chromium")
    return tmp_path / "profile"


def test_a_browser_shows_the_state_change_and_asks_nobody_else(
    serve: Serve, buffer: tuple[MessageBuffer, FakeProvider], browser_folder: Path
) -> None:
    outbox, provider = buffer
    served = serve()

    async def look() -> None:
        async with chromium(browser_folder) as browser:
            wrong = await browser.tab()
            await wrong.go(f"{served.root}/?token=wrong")
            await wrong.until("document.body.innerText.includes('wrong, was used, or is too old')")
            await wrong.go(f"{served.root}/")
            await wrong.until("document.body.innerText.includes('A link with a token is needed')")

            tab = await browser.tab()
            await tab.go(served.link)
            first = await tab.shows("LIVE")
            assert "BUFFERING" not in first
            assert " RO" in first
            assert await tab.value("location.href") == f"{served.root}/"
            assert await tab.value("document.cookie") == ""

            second = await browser.tab()
            await second.go(f"{served.root}/")
            await second.shows("LIVE")

            provider.down()
            outbox.write("topic", b"while it is away")
            for each in (tab, second):
                await each.shows("■ BUFFERING")
            provider.up()
            for each in (tab, second):
                await each.shows("● LIVE")

            # What a message shows cannot send the browser elsewhere either.
            assert await tab.value("fetch('http://127.0.0.1:9/').then(() => 'went', () => 'refused')") == "refused"
            assert await tab.value("window.open('http://127.0.0.1:9/') === null") is True
            assert tab.hosts() == second.hosts() == wrong.hosts() == {served.place}

            served.process.send_signal(signal.SIGTERM)
            await tab.until("document.body.classList.contains('-closed')")
            assert "The session has ended" in await tab.text()

    asyncio.run(look())
