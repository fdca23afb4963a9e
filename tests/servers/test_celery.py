"""Celery's prefork pool: its processes are forked, work, are recycled and killed, and leave by os._exit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mbframework.testing.redis import RedisServer
from tests.engine.rig import eventually
from tests.servers.rig import Served, require, tail

TASKS, EACH = 40, 20


@pytest.mark.parametrize("mode", ["always", "buffer"])
def test_every_accepted_message_arrives_once(
    tmp_path: Path, redis_server: RedisServer, redis_prefix: str, mode: str
) -> None:
    require("celery")
    served = Served(tmp_path)
    ledger = tmp_path / "ledger"
    env = {"LEDGER": str(ledger), "BROKER": redis_server.url, "PREFIX": redis_prefix, "MODE": mode}
    with served.run("served_celery", str(TASKS), str(EACH), env=env):
        served.ended()
    command = (
        "--app",
        "served_celery",
        "worker",
        "--pool",
        "prefork",
        "--concurrency",
        "3",
        "--max-tasks-per-child",
        "8",
    )

    def entries() -> list[list[int]]:
        lines = ledger.read_text().splitlines(keepends=True) if ledger.exists() else []
        return [[int(word) for word in line.split()] for line in lines if line.endswith("\n")]

    with served.run("celery", *command, "--loglevel", "WARNING", "--without-gossip", "--without-mingle", env=env):
        eventually(lambda: len(entries()) > 200, "the first tasks", 40)
        if mode == "always":
            os.kill(entries()[-1][1], signal.SIGKILL)
        # A task that was killed in its middle does not come again.
        eventually(lambda: len(entries()) > (TASKS - 2) * EACH, "the last task", 40)
        served.terminate()
    served.accepted = [number for number, _ in entries()]
    processes = {pid for _, pid in entries()}
    assert len(processes) > 3
    # The one that imports the program, the three of its pool, and one that comes while another one leaves.
    served.account(lanes=5)
    assert tail(served.log, ["mbframework"]) == []
