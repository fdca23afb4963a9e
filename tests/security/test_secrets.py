"""Secrets: in no log, status, event, repr, traceback, file or screen, wherever they were given."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mbframework import MessageBuffer, MessageBufferError, read_status
from tests.engine.rig import FAST, eventually
from tests.tui.stage import staged

SECRET = "hunter2&=%/x"
#: As it is, in a URL, twice in one.
FORMS = (SECRET, quote(SECRET, safe=""), quote(quote(SECRET, safe=""), safe=""))
WORD = "hunter2"
NOWHERE = "127.0.0.1:1"
URLS = {
    "kafka": f"kafka://me:{FORMS[1]}@{NOWHERE}?sasl=plain",
    "a client's own option": f"confluent://{NOWHERE}?client.sasl.oauthbearer.client.secret={FORMS[1]}",
    "behind another": "fault:?inner=" + quote(f"kafka://me:{FORMS[1]}@{NOWHERE}?sasl=plain", safe=""),
    "redis": f"redis://:{FORMS[1]}@{NOWHERE}",
    "postgres": f"postgres://me:{FORMS[1]}@{NOWHERE}/db",
}


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All that any library logs, tracebacks included."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.DEBUG)
    root, package = logging.getLogger(), logging.getLogger("mbframework")
    levels = root.level, package.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    package.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        package.setLevel(levels[1])


def check(text: str) -> None:
    assert WORD not in text, text[max(0, text.index(WORD) - 200) : text.index(WORD) + 100]


def check_files(path: Path) -> None:
    for folder, _, names in os.walk(path):
        for name in names:
            data = Path(folder, name).read_bytes()
            assert WORD.encode() not in data, f"{folder}/{name}"


@pytest.mark.parametrize("kind", URLS)
def test_a_password_is_seen_nowhere(kind: str, tmp_path: Path, everything_logged: io.StringIO) -> None:
    path = tmp_path / "buffer"
    with MessageBuffer(path, URLS[kind], **FAST) as buffer:
        buffer.write("t", "0")
        eventually(lambda: buffer.status().failures or buffer.status().last_error, "a failure")
        check(repr(buffer))
        check(str(buffer.status().as_dict()))
        check(str(read_status(path)))
    check(everything_logged.getvalue())
    check_files(path)
    # What is shown comes from the files above; of one kind the programs that show it are run as well.
    if kind != "behind another":
        return
    for command in (["status", path], ["status", "--json", path], ["metrics", "--once", path], ["check", path]):
        done = subprocess.run(
            [sys.executable, "-m", "mbframework", *map(str, command)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        check(done.stdout + done.stderr)

    async def look() -> None:
        from mbtui.source import Directories

        async with staged(Directories([str(path)])) as stage:
            await stage.until_shown("main")
            check(stage.text)

    asyncio.run(look())


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (f"kafka://me:{FORMS[1]}@{NOWHERE}?sasl=plainn", {}),
        (f"kafka://me:{FORMS[1]}@{NOWHERE}?no_such_option={FORMS[1]}", {}),
        (f"kafka://me:{FORMS[1]}@{NOWHERE}:x", {}),
        (f"nosuch://me:{FORMS[1]}@h", {}),
        (f"kafka://{NOWHERE}", {"provider_options": {"client": {"sasl.password": SECRET}, "tls": "perhaps"}}),
        (f"kafka://me:{FORMS[1]}@{NOWHERE}", {"mode": "bufer"}),
    ],
)
def test_no_refusal_quotes_one(url: str, options: dict[str, object], tmp_path: Path) -> None:
    try:
        MessageBuffer(tmp_path / "buffer", url, **options)  # type: ignore[arg-type]
    except MessageBufferError as error:
        said = "".join(traceback.format_exception(error))
        # The line of this test that a traceback quotes has none in it.
        check(said)
        check(repr(error))
    else:
        pytest.fail("it was not refused")


def test_the_variable_or_file_that_holds_one_is_named_and_its_content_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything_logged: io.StringIO
) -> None:
    monkeypatch.setenv("THE_PASSWORD", SECRET)
    (tmp_path / "password").write_text(SECRET + "\n")
    for place in ("env:THE_PASSWORD", f"file:{tmp_path}/password"):
        path = tmp_path / place.partition(":")[0]
        with MessageBuffer(path, f"kafka://me:{quote(place, safe='')}@{NOWHERE}?sasl=plain", **FAST) as buffer:
            buffer.write("t", "0")
            eventually(lambda: buffer.status().failures, "a failure")
            check(repr(buffer) + str(buffer.status()))
        check_files(path)
    check(everything_logged.getvalue())
