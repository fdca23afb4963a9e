"""What holds for every test: it leaves no thread and no open file behind; with ``CI=true``
what the tests need is not optional."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest

from mbframework.testing.descriptors import open_descriptors

#: Seconds that a closed thread or file has to go away.
GRACE_S = 3.0

#: Threads of these names belong to brokers that outlive a test.
SESSION_THREADS = ("test-server-keeper",)

pytest_plugins = [
    "tests.http_fixture",
    "tests.kafka_fixture",
    "tests.mqtt_fixture",
    "tests.nats_fixture",
    "tests.postgres_fixture",
    "tests.rabbitmq_fixture",
    "tests.redis_fixture",
]

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which a thread runs, or a file is open, that was not there before it.

    What session fixtures hold was set up earlier and does not count.
    """
    threads, files = set(threading.enumerate()), _open_files()
    yield
    deadline = time.monotonic() + GRACE_S
    new_threads = [thread for thread in threading.enumerate() if thread not in threads and _ends_with_test(thread)]
    for thread in new_threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    while (new_files := _open_files() - files) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    left = [f"thread {thread.name!r}" for thread in new_threads if thread.is_alive()]
    left += [f"file descriptor {number}: {target}" for number, target in sorted(new_files)]
    if left:
        pytest.fail("the test left behind: " + ", ".join(left), pytrace=False)


def _ends_with_test(thread: threading.Thread) -> bool:
    return thread is not threading.current_thread() and not thread.name.startswith(SESSION_THREADS)


def _open_files() -> set[tuple[int, str]]:
    """The open descriptors and what they lead to; empty where the system does not tell."""
    # multiprocessing starts its resource tracker once and keeps it.
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    kept = None if tracker is None else tracker._resource_tracker._fd
    return {(number, target) for number, target in open_descriptors() if number != kept}


#: Servers and programs that `.ci/run` installs, as reasons for a skip name them.
NEEDED = ("kafka", "redis", "nats", "rabbitmq", "mqtt", "mosquitto", "postgres", "chromium", "tmux")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those that share a server run in one process, so that there is one of it."""
    for item in items:
        for server in NEEDED:
            if any(name.startswith(server) for name in getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.xdist_group(server))
                break


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was skipped for want of one of them fails in CI."""
    return _with_all_required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So does a module."""
    return _with_all_required((yield))


def _with_all_required(report: Report) -> Report:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if any(name in reason.lower() for name in NEEDED):
            report.outcome = "failed"
            report.longrepr = f"with CI=true this must not be skipped: {reason}"
    return report
