"""What holds for every test: it leaves no thread and no open file behind; with ``CI=true`` what the tests need is not
optional; and no test depends on the pace of the machine, but for those that ask what is ``promised``."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import pytest

from mbframework.testing.descriptors import open_descriptors
from tests import examples

#: Seconds that a closed thread or file has to go away.
GRACE_S = 30.0

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

examples.load()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and whatever the tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


#: What was promised within a time comes within so many seconds on any machine that is merely busy, or never.
PATIENCE_S = 60.0


@pytest.fixture
def promised() -> Callable[[float], float]:
    """``promised(seconds)``: what something may take that must happen within these seconds on an idle machine.

    It is held to them with ``MBFRAMEWORK_TEST_PACE=promised``, as ``make torture`` does with nothing beside it.
    """
    strict = os.environ.get("MBFRAMEWORK_TEST_PACE") == "promised"
    return lambda seconds: seconds if strict else PATIENCE_S


#: Servers and programs that `.ci/run` installs, as reasons for a skip name them.
NEEDED = ("kafka", "redis", "nats", "rabbitmq", "mqtt", "mosquitto", "postgres", "chromium", "tmux")

#: What takes long to make and is made once for many tests, as the names of fixtures begin.
SHARED = ("kafka_on_a_line", *NEEDED, "wheel")


# First, since xdist reads the marks in its own.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, those that share a server run in one process, so that there is one of it; what is
    promised within a time is marked, so that it can be run alone."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "promised" in names:
            item.add_marker(pytest.mark.alone)
        made = next((made for made in SHARED if any(name.startswith(made) for name in names)), None)
        if made is not None and item.get_closest_marker("xdist_group") is None:
            # With the one broker they are together too long for a process: each module is a group of its own.
            item.add_marker(pytest.mark.xdist_group(item.path.stem if made == "kafka" else made))


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
