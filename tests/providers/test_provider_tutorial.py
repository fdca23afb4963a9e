"""The example of providers/README.md, as it stands there: installed, found by its scheme, against a real server."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbframework import MessageBuffer
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.plugins.source import resolve_url
from mbframework.provider import Provider
from tests.providers.batches import ROOT, batch_of, context, make_batch

BLOCK = re.compile(r"```(?:python|toml)\n# (\S+)\n(.*?)```", re.DOTALL)


class Server(socketserver.ThreadingTCPServer):
    """The server that the tutorial talks of; ``room`` is how many lines it still stores."""

    daemon_threads = True

    def __init__(self) -> None:
        self.lines: list[list[str]] = []
        self.room = 1000
        self._open: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), Connection)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        self._open.append(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        for each in self._open:
            each.shutdown(socket.SHUT_RDWR)


class Connection(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        while token := self.rfile.readline():
            count = int(self.rfile.readline())
            lines = [json.loads(self.rfile.readline()) for _ in range(count)]
            if token == b"vanish\n":
                return
            if token != b"letmein\n":
                self.wfile.write(b"denied\n")
                continue
            taken = lines[: self.server.room]
            self.server.room -= len(taken)
            self.server.lines += taken
            self.wfile.write(b"%d\n" % len(taken))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of the tutorial, installed as pip would."""
    files = dict(BLOCK.findall((ROOT / "providers" / "README.md").read_text()))
    assert list(files) == ["acme_lines/__init__.py", "acme_lines/provider.py", "pyproject.toml"]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    info = tmp_path / "acme_lines-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lines\nVersion: 1.0\n")
    ((group, scheme, module),) = re.findall(r'entry-points\."(.+)"\]\n(.+) = "(.+)"', files["pyproject.toml"])
    (info / "entry_points.txt").write_text(f"[{group}]\n{scheme} = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_lines"]:
        del sys.modules[name]


def opened(server: Server, token: str) -> Provider:
    host, port = server.server_address[:2]
    provider = resolve_url(f"lines://{host!s}:{port}?token={token}").create(context())
    provider.open(context())
    return provider


def test_the_tutorial_delivers_and_reports_what_it_did_not(installed: None, server: Server) -> None:
    provider = opened(server, "letmein")
    provider.send(make_batch(1, 3))
    assert server.lines == [["orders", "1"], ["orders", "2"], ["orders", "3"]]
    server.room = 2
    messages = [m if m.sequence != 5 else m._replace(value=b"\xff") for m in make_batch(4, 5)]
    with pytest.raises(SendFailed) as failed:
        provider.send(batch_of(messages))
    assert failed.value.rejected == {1: "the server takes text only"}
    assert failed.value.undelivered == [3, 4]
    assert [value for _, value in server.lines[3:]] == ["4", "6"]
    provider.close(1)
    provider.close(1)


def test_the_tutorial_connects_again_after_the_server_hung_up(installed: None, server: Server, tmp_path: Path) -> None:
    host, port = server.server_address[:2]
    url = f"lines://{host!s}:{port}?token=letmein"
    with MessageBuffer(tmp_path / "b", url, retry_wait=0.01) as buffer:
        buffer.write("orders", "1")
        buffer.flush(60)
        server.hang_up()
        buffer.write("orders", "2")
        buffer.flush(60)
    assert [value for _, value in server.lines] == ["1", "2"]


def test_the_tutorial_tells_its_errors_apart(installed: None, server: Server) -> None:
    with pytest.raises(ProviderUnusable, match="token"):
        _send_and_close(opened(server, "wrong"))
    with pytest.raises(SendFailed, match="hung up") as failed:
        _send_and_close(opened(server, "vanish"))
    assert failed.value.uncertain
    provider = resolve_url("lines://127.0.0.1:1?timeout=1s").create(context())
    with pytest.raises(SendFailed, match="no answer"):
        provider.open(context())


def _send_and_close(provider: Provider) -> None:
    try:
        provider.send(make_batch(1, 1))
    finally:
        provider.close(1)
