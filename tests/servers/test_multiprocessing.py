"""multiprocessing: processes and pools, forked or not, that end, are terminated, or are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbframework import Sidecar
from mbframework.config import Config
from mbframework.plugins.source import resolve
from tests.servers.rig import Served, tail


@pytest.mark.parametrize(
    ("method", "how", "mode"),
    [
        ("fork", "closed", "buffer"),
        ("forkserver", "closed", "buffer"),
        ("fork", "terminated", "buffer"),
        ("spawn", "terminated", "buffer"),
        # What a kill -9 leaves is on disk in this mode.
        ("fork", "killed", "always"),
    ],
)
def test_every_accepted_message_arrives_once(tmp_path: Path, method: str, how: str, mode: str) -> None:
    served = Served(tmp_path)
    ledger = tmp_path / "ledger"
    env = {"LEDGER": str(ledger), "MODE": mode}
    if how != "killed":
        env["DESTINATION"] = served.slow("50ms")
    with served.run("served_pool", method, how, env=env):
        served.ended()
    served.accepted = [int(line) for line in ledger.read_text().split()]
    assert len(served.accepted) > 500
    assert tail(served.log, ["Traceback", "mbframework", "Error"]) == []
    # What the closing processes had no time for.
    source = resolve(f"sqlite://{served.destination}")
    Sidecar(Config.layered(directory=served.outbox), source).run(until_empty=True)
    served.account(lanes=4)
