"""uvicorn: workers that are spawned, and a FastAPI program whose lifespan holds the buffer."""

from __future__ import annotations

from pathlib import Path

from tests.engine.rig import eventually
from tests.servers.rig import Served, require, tail


def test_every_accepted_message_arrives_once_while_workers_are_killed(tmp_path: Path) -> None:
    require("uvicorn", "fastapi")
    served = Served(tmp_path)
    with served.run("uvicorn", "--workers", "2", "--port", str(served.port), "served_asgi:app"):
        eventually(served.answers, "an answer")
        with served.load():
            served.more(100, workers=2)
            served.kill_a_worker()
            served.more(100, workers=2)
        served.terminate()
    served.account(lanes=2)
    assert tail(served.log, ["Traceback", "mbframework"]) == []


def test_without_a_lifespan_install_sigterm_closes_what_uvicorn_ends(tmp_path: Path) -> None:
    """uvicorn raises the signal again when it has stopped, which would be the end without an exit handler."""
    require("uvicorn", "fastapi")
    served = Served(tmp_path)
    with served.run(
        "uvicorn",
        "--workers",
        "2",
        "--port",
        str(served.port),
        "served_module:app",
        env={"MODE": "buffer", "DESTINATION": served.slow("300ms")},
    ):
        eventually(served.answers, "an answer")
        with served.load():
            served.more(100, workers=2)
        served.terminate()
    served.account(lanes=2)
