"""gunicorn: workers that are forked, with and without ``--preload``, of its sync and gevent kinds."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mbframework import Sidecar
from mbframework.config import Config
from mbframework.plugins.source import resolve
from tests.engine.rig import eventually
from tests.servers.rig import Served, require, tail


@pytest.mark.parametrize(
    ("kind", "preload"), [("sync", False), ("sync", True), ("gthread", True), ("gevent", False), ("gevent", True)]
)
def test_every_accepted_message_arrives_once_while_workers_are_killed(tmp_path: Path, kind: str, preload: bool) -> None:
    require("gunicorn", *(["gevent"] if kind == "gevent" else []))
    served = Served(tmp_path)
    arguments = ["--workers", "2", "--worker-class", kind, "--bind", f"127.0.0.1:{served.port}", "served_wsgi"]
    if kind == "gthread":
        arguments += ["--threads", "4"]
    if (kind, preload) == ("sync", False):
        # Workers come and go all the time.
        arguments += ["--max-requests", "60"]
    with served.run("gunicorn", *(["--preload"] if preload else []), *arguments):
        eventually(served.answers, "an answer")
        with served.load():
            served.more(100, workers=2)
            served.kill_a_worker()
            served.more(100, workers=2)
        served.terminate()
    # The master's own, where it has the buffer too, and one for each worker: that of the killed one was adopted.
    served.account(lanes=3 if preload else 2)
    assert tail(served.log, ["Traceback", "mbframework"]) == []


def test_workers_that_only_write_share_one_sender(tmp_path: Path) -> None:
    """`mb drain` beside them; the lane of a worker that was killed is sent without another worker."""
    require("gunicorn")
    served = Served(tmp_path)
    served.outbox.mkdir(mode=0o700)
    arguments = ("--workers", "2", "--bind", f"127.0.0.1:{served.port}", "served_wsgi")
    with served.run("gunicorn", *arguments, env={"DESTINATION": ""}):
        eventually(served.answers, "an answer")
        sidecar = Sidecar(Config.layered(directory=served.outbox), resolve(f"sqlite://{served.destination}"))
        drain = threading.Thread(target=sidecar.run)
        drain.start()
        try:
            with served.load():
                served.more(100, workers=2)
                served.kill_a_worker()
                served.more(100, workers=1)
            served.terminate()
            eventually(lambda: len(served.arrived()) >= len(served.accepted), "the rest")
        finally:
            sidecar.stop()
            drain.join()
    served.account(lanes=2)
