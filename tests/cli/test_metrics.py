"""``mb metrics``: printed once, and served until it is stopped."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from mbframework import MessageBuffer
from mbframework.metrics.catalogue import METRICS
from tests.cli.conftest import Run, Start, environment
from tests.monitor.lanes import make_lane


def test_once(mb: Run, tmp_path: Path) -> None:
    make_lane(tmp_path / "outbox", segments=2, delivered=5)
    done = mb("metrics", "outbox", "missing", "--once")
    assert (done.returncode, done.stderr) == (0, b"")
    found = {sample.name: sample for family in parse(done.stdout.decode()) for sample in family.samples}
    # A dead lane without status files tells neither its limits nor its retries, nor when what began.
    told = {metric.name for metric in METRICS} - set(found)
    assert told == {
        *("mbframework_buffer_limit_bytes", "mbframework_retries_total"),
        *("mbframework_last_error_timestamp_seconds", "mbframework_state_since_timestamp_seconds"),
    }
    assert found["mbframework_buffer_messages"].value == 15
    ups = [line for line in done.stdout.decode().splitlines() if line.startswith("mbframework_up{")]
    assert [line.rpartition(" ")[2] for line in ups] == ["1.0", "0.0"]


def served(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    match = re.search(rb"at (http://\S+:\d+/metrics)$", process.stderr.readline().strip())
    assert match is not None
    return match[1].decode()


def read(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    return {sample.name: sample.value for family in parse(text) for sample in family.samples}


@pytest.mark.parametrize(("number", "host"), [(signal.SIGINT, "127.0.0.1"), (signal.SIGTERM, "localhost")])
def test_served_until_a_signal(start: Start, tmp_path: Path, number: signal.Signals, host: str) -> None:
    process = start("metrics", "outbox", "--listen", f"{host}:0")
    url = served(process)
    assert read(url)["mbframework_up"] == 0
    with MessageBuffer(tmp_path / "outbox") as buffer:
        buffer.write("t", "1")
        buffer.sync()
        assert read(url)["mbframework_buffer_messages"] == 1
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")
    with pytest.raises(urllib.error.URLError):
        read(url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "9464"], "--listen: '9464': expected HOST:PORT"),
        (["--listen", ":9464"], "expected HOST:PORT"),
        (["--listen", "127.0.0.1:70000"], "expected HOST:PORT"),
        (["--listen", "\x1b[2J:1"], "expected HOST:PORT"),
        (["--listen", "192.0.2.1:0"], "192.0.2.1:0: Cannot assign requested address; give another address"),
        (["--listen", "127.0.0.1:1", "--once"], "give one of them"),
    ],
)
def test_a_wrong_address_is_one_line(mb: Run, tmp_path: Path, options: list[str], said: str) -> None:
    done = mb("metrics", str(tmp_path), *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode().splitlines()[-1]
    assert b"\x1b" not in done.stderr


def test_an_address_in_use(mb: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = mb("metrics", str(tmp_path), "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert b"Address already in use; give another address" in done.stderr


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from mbframework.cli import main; main(['metrics', '.', '--once'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(None),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith("not installed here; run: pip install 'mbframework[prometheus]'")
