"""The recipes for web frameworks, as docs/integrations.md has them."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def programs(name: str) -> list[str]:
    """The programs of the page behind the mark ``run: name``, up to the next heading."""
    text = (ROOT / "docs" / "integrations.md").read_text().partition(f"<!-- run: {name} -->\n")[2]
    return re.findall(
        r"^```python\n(.*?)^```", re.split(r"^## ", text, flags=re.MULTILINE)[0], re.MULTILINE | re.DOTALL
    )


def arrived(database: Path) -> list[bytes]:
    connection = sqlite3.connect(database)
    try:
        return [row[0] for row in connection.execute("SELECT value FROM messages ORDER BY rowid")]
    finally:
        connection.close()


def run(program: str, home: Path) -> str:
    """Run a program in a process of its own, in ``home``; what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        cwd=home, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_fastapi(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs FastAPI; run: pip install fastapi httpx")
    client = """
import asyncio, httpx

async def main():
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as web:
        for i in range(3):
            answer = await web.post("/orders", content=b"order %d" % i)
            print(answer.status_code, answer.json()["sequence"])
        await app.state.buffer.flush(60)
        print((await web.get("/health")).json()["waiting"])
        await app.state.buffer.close()
        print((await web.post("/orders", content=b"late")).status_code)

asyncio.run(main())
"""
    assert run(programs("fastapi")[0] + client, tmp_path).split() == ["202", "1", "202", "2", "202", "3", "0", "503"]
    assert arrived(tmp_path / "outbox.db") == [b"order 0", b"order 1", b"order 2"]


def test_django(tmp_path: Path) -> None:
    pytest.importorskip("django", reason="needs Django; run: pip install django")
    outbox, views = programs("django")
    (tmp_path / "outbox.py").write_text(outbox)
    (tmp_path / "views.py").write_text(views)
    program = """
import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}},
    ROOT_URLCONF="urls", OUTBOX_DIRECTORY="buffer", OUTBOX_PROVIDER="sqlite:outbox.db", ALLOWED_HOSTS=["testserver"],
)
django.setup()
import sys, types
from django.urls import path
import views

sys.modules["urls"] = types.ModuleType("urls")
sys.modules["urls"].urlpatterns = [path("orders", views.order)]
from django.db import transaction
from django.test import Client
from outbox import outbox, publish

print(Client().post("/orders", b"order 1", content_type="text/plain").status_code)
try:
    with transaction.atomic():
        publish("orders", b"rolled back")
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    publish("orders", b"order 2")
    print(outbox().status().accepted)
outbox().flush(60)
"""
    assert run(program, tmp_path).split() == ["202", "1"]
    assert arrived(tmp_path / "outbox.db") == [b"order 1", b"order 2"]


def test_the_programs_for_logging_and_tracing(tmp_path: Path) -> None:
    run(programs("logging")[0], tmp_path)
    assert '\\"percent\\": 93' in (tmp_path / "logs.jsonl").read_text()
    (tmp_path / "outbox").rename(tmp_path / "outbox-of-logs")
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk; run: pip install opentelemetry-sdk")
    setup = "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
    run(f"{setup}trace.set_tracer_provider(TracerProvider())\n{programs('tracing')[0]}", tmp_path)
    assert arrived(tmp_path / "outbox.db") == [b"value"]


def test_the_program_for_cloudevents(tmp_path: Path) -> None:
    from mbframework.cloudevents import event_headers

    seen = event_headers(type="seen", source="/")
    more = f"from types import SimpleNamespace\nhandle(SimpleNamespace(headers={seen!r}))"
    assert run(f"{programs('cloudevents')[0]}\n{more}", tmp_path).split() == ["seen"]
    assert arrived(tmp_path / "outbox.db") == [b'{"number": 42}']


def test_the_configuration_of_logging_is_one(tmp_path: Path) -> None:
    import logging.config

    names: dict[str, Any] = {}
    exec(programs("logging")[1], names)
    configuration = names["LOGGING"]
    configuration["handlers"]["outbox"] |= {"buffer": str(tmp_path / "logs"), "provider": "fake:"}
    configuration["loggers"] = {"shop.page": configuration.pop("root")}
    configuration["disable_existing_loggers"] = False
    logging.config.dictConfig(configuration)
    logger = logging.getLogger("shop.page")
    logger.info("hello")
    (handler,) = logger.handlers
    assert handler.buffer.status().accepted == 1  # type: ignore[attr-defined]
    logger.removeHandler(handler)
    handler.close()
