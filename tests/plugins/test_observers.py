from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from mbframework.errors import BrokenPlugin, PluginError, UnknownProvider
from mbframework.observers import ObserverHub
from mbframework.plugins import hookimpl, hookspecs
from tests.plugins.conftest import Install

CHANGE = {"directory": "d", "lane": "main", "before": "live", "after": "buffering", "reason": "refused"}
DEAD = {"directory": "d", "lane": "main", "sequence": 7, "topic": "t", "reason": "too large"}
WAIT_S = 10.0

MakeHub = Callable[..., ObserverHub]


@pytest.fixture
def hub() -> Iterator[MakeHub]:
    hubs: list[ObserverHub] = []

    def make(*observers: str | object, limit: int = 100) -> ObserverHub:
        hubs.append(ObserverHub(observers, limit=limit))
        return hubs[-1]

    yield make
    for one in hubs:
        assert one.close(WAIT_S)


class Notes:
    """Writes down what it is told; names only the arguments that it wants."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.threads: set[threading.Thread] = set()

    @hookimpl
    def mbframework_state_changed(self, lane: str, after: str) -> None:
        self.threads.add(threading.current_thread())
        self.seen.append((lane, after))

    @hookimpl
    def mbframework_dead(self, sequence: int) -> None:
        self.seen.append((sequence,))


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def mbframework_state_changed(self) -> None:
        raise self.error


class Stuck:
    def __init__(self) -> None:
        self.called, self.release = threading.Event(), threading.Event()

    @hookimpl
    def mbframework_dead(self) -> None:
        self.called.set()
        self.release.wait(WAIT_S)


def test_observers_are_told_in_order_on_a_thread_of_their_own(hub: MakeHub) -> None:
    first, second = Notes(), Notes()
    hub_ = hub(first, second)
    hub_.emit("mbframework_state_changed", **CHANGE)
    hub_.emit("mbframework_dead", **DEAD)
    hub_.emit("mbframework_state_changed", **{**CHANGE, "after": "live"})
    assert hub_.close(WAIT_S)
    assert first.seen == second.seen == [("main", "buffering"), (7,), ("main", "live")]
    assert threading.current_thread() not in first.threads
    assert hub_.dropped == 0


def test_without_observers_of_a_hook_no_thread_starts(hub: MakeHub) -> None:
    before = threading.active_count()
    hub().emit("mbframework_dead", **DEAD)
    hub(Stuck()).emit("mbframework_state_changed", **CHANGE)
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(1), asyncio.CancelledError()])
def test_an_observer_that_raises_is_logged_and_stops_no_other(
    hub: MakeHub, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    before, after = Notes(), Notes()
    hub_ = hub(before, Raising(error), after)
    with caplog.at_level(logging.INFO, "mbframework.observers"):
        for _ in range(3):
            hub_.emit("mbframework_state_changed", **CHANGE)
        assert hub_.close(WAIT_S)
    assert len(before.seen) == len(after.seen) == 3
    # Once with its traceback, not once an event.
    (record,) = caplog.records
    assert "'Raising' failed in mbframework_state_changed" in record.getMessage()
    assert record.exc_info


def test_a_stuck_observer_never_holds_up_the_caller_and_drops_are_counted(hub: MakeHub) -> None:
    stuck, notes = Stuck(), Notes()
    hub_ = hub(stuck, notes, limit=10)
    hub_.emit("mbframework_dead", **DEAD)
    assert stuck.called.wait(WAIT_S)
    for _ in range(25):
        hub_.emit("mbframework_dead", **DEAD)
    assert hub_.dropped == 15
    stuck.release.set()
    assert hub_.close(WAIT_S)
    assert len(notes.seen) == 11


def test_close_gives_up_on_a_stuck_observer_and_drops_the_rest(hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    stuck, notes = Stuck(), Notes()
    hub_ = hub(stuck, notes)
    for _ in range(3):
        hub_.emit("mbframework_dead", **DEAD)
    assert stuck.called.wait(WAIT_S)
    assert not hub_.close(0.01)
    assert "did not return within" in caplog.text
    hub_.emit("mbframework_dead", **DEAD)
    stuck.release.set()
    assert hub_.close(WAIT_S)
    assert len(notes.seen) == 1
    assert hub_.dropped == 3


def test_an_observer_may_close_the_hub_that_calls_it(hub: MakeHub) -> None:
    class Closing:
        @hookimpl
        def mbframework_dead(self) -> None:
            closed.append(hub_.close(WAIT_S))

    closed: list[bool] = []
    hub_ = hub(Closing())
    hub_.emit("mbframework_dead", **DEAD)
    assert hub_.close(WAIT_S)
    assert closed == [True]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_and_a_queue_of_its_own(hub: MakeHub) -> None:
    stuck, notes = Stuck(), Notes()
    hub_ = hub(stuck, notes)
    hub_.emit("mbframework_dead", **DEAD)
    assert stuck.called.wait(WAIT_S)
    hub_.emit("mbframework_state_changed", **CHANGE)
    child = os.fork()
    if child == 0:
        stuck.release.set()
        hub_.after_fork()
        hub_.emit("mbframework_dead", **{**DEAD, "sequence": 9})
        told = hub_.close(WAIT_S) and notes.seen == [(9,)] and hub_.dropped == 0
        os._exit(0 if told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stuck.release.set()
    assert hub_.close(WAIT_S)
    assert notes.seen == [(7,), ("main", "buffering")]


def test_a_named_observer_comes_from_its_entry_point(hub: MakeHub, install: Install) -> None:
    code = """
        from mbframework.plugins import hookimpl
        seen = []
        @hookimpl
        def mbframework_lost(messages, reason):
            seen.append((messages, reason))
    """
    install("an-alarm", code, observers="alarm", value="{module}")
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="mbframework.observers", name="alarm")
    hub_ = hub("alarm")
    hub_.emit(
        "mbframework_lost", directory="d", lane="main", first_sequence=-1, last_sequence=-1, messages=3, reason="kill"
    )
    assert hub_.close(WAIT_S)
    assert entry.load().seen == [(3, "kill")]


class Misspelt:
    @hookimpl
    def mbframework_segment_seeled(self) -> None: ...


class WrongArguments:
    @hookimpl
    def mbframework_dead(self, url: str) -> None: ...


class Unmarked:
    def mbframework_dead(self) -> None: ...


class Wrapper:
    @hookimpl(wrapper=True)
    def mbframework_dead(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    ("observer", "words"),
    [
        (Misspelt(), "'Misspelt' .*mbframework_segment_seeled"),
        (WrongArguments(), "'WrongArguments' .*url"),
        (Unmarked(), "'Unmarked' implements no hook"),
        (Wrapper(), "'Wrapper' wraps a hook"),
    ],
)
def test_an_observer_that_would_never_be_called_is_refused(observer: object, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        ObserverHub([observer])


def test_an_observer_that_cannot_be_found_or_imported_is_refused(install: Install) -> None:
    install("an-alarm", "import nothing_of_that_name", observers="alarm")
    with pytest.raises(BrokenPlugin, match="'alarm' .*nothing_of_that_name"):
        ObserverHub(["alarm"])
    with pytest.raises(UnknownProvider, match=r"no observer is named 'alrm'; did you mean 'alarm'\?"):
        ObserverHub(["alrm"])


def test_every_hook_takes_the_lane_and_emit_refuses_other_arguments(hub: MakeHub) -> None:
    hub_ = hub(Notes())
    for name, hook in vars(hookspecs).items():
        if name.startswith("mbframework_") and name != "mbframework_provider":
            arguments = [a for a in hook.__annotations__ if a != "return"]
            assert arguments[:2] == ["directory", "lane"]
            hub_.emit(name, **dict.fromkeys(arguments, 1))
            with pytest.raises(TypeError, match=name):
                hub_.emit(name, **dict.fromkeys(arguments[1:], 1))
    with pytest.raises(TypeError, match="no hook 'mbframework_provider'"):
        hub_.emit("mbframework_provider")
