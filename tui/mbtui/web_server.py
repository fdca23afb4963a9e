"""The server of the browser view: textual-serve's, behind a guard and with a page of its own.

Promises
--------
- It listens on 127.0.0.1 alone, writes no access log, and answers nobody whom :class:`mbtui.web_access.Access` refuses.
- The page and all that it needs come from here; its content security policy keeps the browser from asking elsewhere.
- Stopping closes every websocket and ends every process of a tab.

It rests on parts of textual-serve that are not public: the range of its versions is pinned in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp_jinja2
from aiohttp import WSCloseCode, web
from textual_serve.server import Server

from mbtui.web_access import Access
from mbtui.web_session import Session, clamped

PAGE = Path(__file__).with_name("web_page")
#: Tabs at a time: each has a process of its own.
MOST_SESSIONS = 16
HOST = "127.0.0.1"
_FONT_SIZE = 16

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def listen(port: int) -> socket.socket:
    """A socket that listens on ``port`` of 127.0.0.1; 0 is any free one.

    :raises OSError: the port is taken, or not for us.
    """
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen(64)
    except BaseException:
        made.close()
        raise
    return made


class BrowserView(Server):
    """Serves the dashboard that ``arguments`` ask for, a process for each tab, on a listening socket."""

    def __init__(self, arguments: Sequence[str], listening: socket.socket, *, title: str) -> None:
        self._listening = listening
        port = listening.getsockname()[1]
        super().__init__("", host=HOST, port=port, title=title, templates_path=PAGE)
        self._arguments = arguments
        self.access = Access(port)
        self._open: set[web.WebSocketResponse] = set()

    def new_link(self) -> str:
        """An address that lets one browser in, once."""
        return f"{self.public_url}/?token={self.access.new_token(time.monotonic())}"

    async def serve_until(self, stopped: asyncio.Event) -> None:
        """Serve until ``stopped`` is set; then close all tabs."""
        runner = web.AppRunner(await self._make_app(), access_log=None, handle_signals=False, shutdown_timeout=5.0)
        await runner.setup()
        try:
            await web.SockSite(runner, self._listening).start()
            await stopped.wait()
        finally:
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        app.router.add_static("/page", PAGE)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """The base class prints a banner here."""

    async def on_shutdown(self, app: web.Application) -> None:
        for websocket in list(self._open):
            await websocket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")

    # ---- the guard

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        websocket = request.path == "/ws"
        entering = request.path == "/" and "token" in request.query
        if refusal := self.access.refusal(request.headers, websocket=websocket, entering=entering):
            response: web.StreamResponse = web.Response(status=403, text=refusal + "\n")
        elif entering:
            response = self._enter(request)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.Response(status=error.status, text=f"{error.status}: {error.reason}\n")
            if request.path.startswith("/static") and not isinstance(response, web.FileResponse):
                # A directory: what is in it is nobody's business.
                response = web.Response(status=404, text="404: Not Found\n")
        if not response.prepared:
            response.headers.update(self._headers(request.host))
        return response

    def _enter(self, request: web.Request) -> web.Response:
        # A browser that fetches in advance, or asks for the headers alone, must not use the token up.
        if request.method != "GET" or "prefetch" in request.headers.get("Sec-Purpose", ""):
            return web.Response(status=403, text="Open the link in a browser.\n")
        session = self.access.enter(request.query["token"], time.monotonic())
        if session is None:
            text = "This link is wrong, was used, or is too old: each is good once. Ask mbtui --web for another one.\n"
            return web.Response(status=403, text=text)
        # Not a redirect: that would belong to whatever page the link was on, and the strict cookie be held back.
        response = web.Response(
            content_type="text/html",
            text='<!DOCTYPE html><meta http-equiv="refresh" content="0;url=/"><a href="/">Enter</a>',
        )
        response.set_cookie(self.access.cookie, session, httponly=True, samesite="Strict", path="/")
        return response

    @staticmethod
    def _headers(host: str) -> dict[str, str]:
        # The terminal in the page makes style sheets of its own.
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; font-src 'none'; "
            f"connect-src ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }

    # ---- what is served

    @aiohttp_jinja2.template("index.html")
    async def handle_index(self, request: web.Request) -> dict[str, object]:
        return {"title": self.title, "font_size": _FONT_SIZE, "websocket_url": f"ws://{request.host}/ws"}

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._open) >= MOST_SESSIONS:
            raise web.HTTPServiceUnavailable(reason=f"{MOST_SESSIONS} tabs are open already; close one")
        websocket = web.WebSocketResponse(heartbeat=15)
        self._open.add(websocket)
        session = Session(self._arguments, websocket, self.download_manager)
        try:
            size = clamped(request.query.get("width", "80"), request.query.get("height", "24"))
            await websocket.prepare(request)
            await session.serve(size)
        except ValueError as error:
            raise web.HTTPBadRequest(reason="width and height are not numbers") from error
        finally:
            await session.stop()
            self._open.discard(websocket)
        return websocket
