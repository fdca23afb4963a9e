"""The broker of the tests itself: what it does when it cannot run, and that it never outlives its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbframework.testing.kafka import ENVIRONMENT, BrokerError, KafkaBroker
from tests.kafka_fixture import require_kafka


def test_no_jvm_outlives_a_killed_owner(tmp_path: Path) -> None:
    require_kafka()
    script = (
        "import time; from pathlib import Path; from mbframework.testing.kafka import KafkaBroker\n"
        f"broker = KafkaBroker(data=Path({str(tmp_path)!r})).start()\n"
        "print(broker.pid, flush=True); time.sleep(600)"
    )
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        os.kill(pid, 0)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    # Nobody here is its parent, so there is nothing to wait on but its disappearance.
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline and "java" in _name_of(pid):
            time.sleep(0.02)
    assert "java" not in _name_of(pid)


def _name_of(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # A zombie runs no more; whoever adopted it will collect it.
    return "" if "\nState:\tZ" in status else status.partition("\n")[0]


def test_a_broker_that_does_not_come_up_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    require_kafka()
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    broker = KafkaBroker(properties={"num.network.threads": "0"})
    with pytest.raises(BrokerError, match=r"(?s)num\.network\.threads"):
        broker.start()
    broker.stop()


def test_a_broker_from_the_environment(kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, kafka_broker.bootstrap)
    assert KafkaBroker.available() is None
    with KafkaBroker() as broker:
        assert broker.bootstrap == kafka_broker.bootstrap
        assert not broker.controllable
        for action in (broker.kill, broker.freeze):
            with pytest.raises(BrokerError, match="not ours"):
                action()
    monkeypatch.setenv(ENVIRONMENT, "127.0.0.1:1")
    with pytest.raises(BrokerError, match="no Kafka answers"):
        KafkaBroker().start()


def test_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (ENVIRONMENT, "JAVA_HOME", "KAFKA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install -y default-jre-headless" in (KafkaBroker.available() or "")
    (tmp_path / "java").write_text("")
    (tmp_path / "java").chmod(0o755)
    assert "apt-get install -y maven" in (KafkaBroker.available() or "")
    with pytest.raises(BrokerError, match="apt-get install -y maven"):
        KafkaBroker().start()
