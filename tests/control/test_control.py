"""Requests as files: asked, answered, refused; what strangers leave in the directory; many who ask at once."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mbframework.control import Control, ControlError, SenderHandlers, WriterHandlers, ask
from mbframework.errors import ModeError
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.lockfile import LockFile
from mbframework.replay import Replayed
from mbframework.request import MOST_BYTES, packed

FILES = Files()


class Told:
    """What a holder of both locks was told to do."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.retry: Callable[[], object] = lambda: self.calls.append("retry")

    def set_mode(self, mode: str) -> None:
        if mode == "raise":
            raise ModeError("not with a backlog")
        self.calls.append(mode)

    def replay(self, ids: Sequence[int]) -> Replayed:
        self.calls.append(("replay", list(ids)))
        return Replayed(tuple(ids)[:2], "no room")

    def drop(self, ids: Sequence[int]) -> int:
        self.calls.append(("drop", list(ids)))
        return len(ids)

    def sender(self) -> SenderHandlers:
        return SenderHandlers(
            pause=lambda: self.calls.append("pause"),
            resume=lambda: self.calls.append("resume"),
            retry=lambda: self.retry(),
            drop=self.drop,
            purge=lambda: 17,
        )

    def writer(self) -> WriterHandlers:
        return WriterHandlers(set_mode=self.set_mode, replay=self.replay)


@pytest.fixture
def lane(tmp_path: Path) -> Path:
    (tmp_path / "main").mkdir(mode=0o700)
    return tmp_path / "main"


@pytest.fixture
def held(lane: Path) -> Iterator[None]:
    """Both locks of the lane are held, as by an engine."""
    locks = [LockFile.take(FILES, str(lane / name), 0.0) for name in ("writer.lock", "sender.lock")]
    yield
    for lock in locks:
        assert lock is not None
        lock.release()


def control_of(lane: Path, told: Told, *, sender: bool = True, writer: bool = True) -> Control:
    events = EventLog(FILES, str(lane / "events.writer.jsonl"), directory=str(lane.parent), lane="main")
    control = Control(
        FILES,
        str(lane),
        events,
        sender=told.sender() if sender else None,
        writer=told.writer() if writer else None,
        notify=events.flush,
    )
    control.open()
    return control


@contextmanager
def attended(control: Control) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.01):
            control.attend()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def lines(lane: Path, control: Control) -> list[dict[str, Any]]:
    control._events.flush()
    path = lane / "events.writer.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def request(number: int = 0, action: str = "retry", role: str = "sender", **changed: Any) -> tuple[str, bytes]:
    """Name and content of a request that would be executed."""
    facts = {"pid": 7, "boot_id": FILES.boot_id().hex(), "now": FILES.boot_ns(), "timeout": 5.0} | changed
    name = f"{number:032x}"
    return f"{name}.{role}.request", packed(name, action, {}, **facts)


@pytest.mark.usefixtures("held")
def test_each_action_is_done_and_answered_and_told(lane: Path) -> None:
    told = Told()
    control = control_of(lane, told)
    with attended(control):
        assert ask(FILES, str(lane), "pause") == {}
        assert (lane / "paused").exists()
        assert ask(FILES, str(lane), "resume") == {}
        assert not (lane / "paused").exists()
        assert ask(FILES, str(lane), "retry") == {}
        assert ask(FILES, str(lane), "mode", {"mode": "always"}) == {"mode": "always"}
        assert ask(FILES, str(lane), "purge") == {"purged": 17}
        assert ask(FILES, str(lane), "dead-drop", {"ids": [4, 5]}) == {"dropped": 2}
        replayed = ask(FILES, str(lane), "dead-replay", {"ids": [1, 2, 3]})
        with pytest.raises(ControlError, match="not with a backlog"):
            ask(FILES, str(lane), "mode", {"mode": "raise"})
    assert replayed == {"replayed": 2, "ids": [1, 2], "dropped": 2, "why": "no room"}
    # What was not written again is not dropped.
    assert told.calls[-2:] == [("replay", [1, 2, 3]), ("drop", [1, 2])]
    assert told.calls[:4] == ["pause", "resume", "retry", "always"]
    assert os.listdir(lane / "control") == []
    said = [(line["action"], line["uid"], line["pid"]) for line in lines(lane, control) if line["action"]]
    assert said[:2] == [("pause", os.geteuid(), os.getpid()), ("resume", os.geteuid(), os.getpid())]
    results = [line["result"] for line in lines(lane, control)]
    assert "purged 17" in results
    assert "not with a backlog" in results


@pytest.mark.usefixtures("held")
def test_each_half_answers_what_is_its_own(lane: Path) -> None:
    writer, sender = Told(), Told()
    with attended(control_of(lane, writer, sender=False)), attended(control_of(lane, sender, writer=False)):
        ask(FILES, str(lane), "pause")
        ask(FILES, str(lane), "mode", {"mode": "buffer"})
        assert ask(FILES, str(lane), "dead-replay", {"ids": [1]})["dropped"] == 0
        assert ask(FILES, str(lane), "dead-drop", {"ids": [1]}) == {"dropped": 1}
    assert sender.calls == ["pause", ("drop", [1])]
    assert writer.calls == ["buffer", ("replay", [1])]


@pytest.mark.usefixtures("held")
def test_many_ask_at_once_and_each_gets_its_own_answer(lane: Path) -> None:
    told = Told()
    with attended(control_of(lane, told)), ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(lambda n: ask(FILES, str(lane), "dead-drop", {"ids": list(range(1, n + 1))}), range(1, 101))
        )
    assert [answer["dropped"] for answer in answers] == list(range(1, 101))
    assert len(told.calls) == 100
    assert os.listdir(lane / "control") == []


def test_where_nobody_holds_the_lane_that_is_said_at_once(lane: Path) -> None:
    control_of(lane, Told())
    with pytest.raises(ControlError, match=r"lane main: nothing is running, no process sends it") as caught:
        ask(FILES, str(lane), "retry")
    assert caught.value.nobody
    with pytest.raises(ControlError, match="no process writes to it"):
        ask(FILES, str(lane), "mode", {"mode": "always"})
    with pytest.raises(ControlError, match="has no lane other"):
        ask(FILES, str(lane.parent / "other"), "purge")


@pytest.mark.usefixtures("held")
def test_a_silent_process_is_named_and_gets_the_request_never(lane: Path) -> None:
    told = Told()
    control = control_of(lane, told)
    with pytest.raises(
        ControlError, match=rf"no answer within 0.1 s \(process {os.getpid()} on .*nothing was done"
    ) as it:
        ask(FILES, str(lane), "pause", timeout=0.1)
    assert not it.value.nobody
    control.attend()
    assert told.calls == []
    assert os.listdir(lane / "control") == []


@pytest.mark.usefixtures("held")
def test_what_was_taken_and_not_answered_says_so(lane: Path) -> None:
    told, go = Told(), threading.Event()
    told.retry = lambda: go.wait(20)
    with attended(control_of(lane, told)):
        with pytest.raises(ControlError, match="was taken, and not answered within"):
            ask(FILES, str(lane), "retry", timeout=0.2)
        go.set()


@pytest.mark.usefixtures("held")
def test_a_directory_that_takes_no_requests_is_named(lane: Path) -> None:
    with pytest.raises(ControlError, match="takes no requests"):
        ask(FILES, str(lane), "retry")
    (lane / "control").symlink_to("/tmp")
    with pytest.raises(ControlError, match="is not a directory"):
        ask(FILES, str(lane), "retry")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
@pytest.mark.usefixtures("held")
def test_a_directory_that_others_may_enter_is_not_read_until_it_is_mended(lane: Path, mode: int) -> None:
    told = Told()
    control = control_of(lane, told)
    name, content = request()
    (lane / "control" / name).write_bytes(content)
    (lane / "control").chmod(mode)
    for _ in range(3):
        control.attend()
    with pytest.raises(ControlError, match="run chmod 0700"):
        ask(FILES, str(lane), "retry")
    assert told.calls == []
    assert [line["result"] for line in lines(lane, control)] == [
        f"{lane}/control has mode {mode:04o}, so that others could ask: run chmod 0700 {lane}/control"
    ]
    (lane / "control").chmod(0o700)
    control.attend()
    assert told.calls == ["retry"]
    assert lines(lane, control)[1]["result"] == "requests are taken again"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_directory_of_somebody_else_is_not_read(lane: Path) -> None:
    told = Told()
    control = control_of(lane, told)
    (lane / "control" / request()[0]).write_bytes(request()[1])
    os.chown(lane / "control", 12345, -1)
    control.attend()
    assert told.calls == []
    assert "belongs to user 12345" in lines(lane, control)[0]["result"]


def link(path: Path, content: bytes) -> None:
    (path.parent.parent / "elsewhere").write_bytes(content)
    path.symlink_to(path.parent.parent / "elsewhere")


def hard_link(path: Path, content: bytes) -> None:
    (path.parent.parent / "elsewhere").write_bytes(content)
    os.link(path.parent.parent / "elsewhere", path)


def pipe(path: Path, content: bytes) -> None:
    os.mkfifo(path)


def long(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.truncate(path, 100 << 20)


def padded(path: Path, content: bytes) -> None:
    path.write_bytes(content.ljust(MOST_BYTES + 1))


def writable(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o666)


def foreign(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(path, 12345, -1)


def malformed(path: Path, content: bytes) -> None:
    path.write_bytes(content[:-1])


def stale(path: Path, content: bytes) -> None:
    path.write_bytes(request(now=FILES.boot_ns() - 6 * 10**9)[1])


def of_another_boot(path: Path, content: bytes) -> None:
    path.write_bytes(request(boot_id="00" * 16)[1])


def unknown(path: Path, content: bytes) -> None:
    path.write_bytes(request(action="explode")[1])


def renamed(path: Path, content: bytes) -> None:
    path.write_bytes(request(number=1)[1])


@pytest.mark.parametrize(
    "make",
    [link, hard_link, pipe, long, padded, writable, foreign, malformed, stale, of_another_boot, unknown, renamed],
)
def test_what_is_no_request_is_removed_unexecuted_and_told(lane: Path, make: Callable[[Path, bytes], None]) -> None:
    told = Told()
    control = control_of(lane, told)
    name, content = request()
    make(lane / "control" / name, content)
    control.attend()
    assert told.calls == []
    assert os.listdir(lane / "control") == []
    (line,) = lines(lane, control)
    assert line["result"].startswith(f"refused {name}: ")
    elsewhere = lane / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == content
    # The next honest one is heard.
    (lane / "control" / name).write_bytes(request()[1])
    control.attend()
    assert told.calls == ["retry"]


def test_what_cannot_be_removed_is_told_once_and_keeps_nobody_from_asking(lane: Path) -> None:
    told = Told()
    control = control_of(lane, told)
    for number in range(200):
        (lane / "control" / f"{number:032x}.sender.request").mkdir()
        (lane / "control" / f"junk-{number}").write_bytes(b"")
    name, content = request(1000)
    (lane / "control" / name).write_bytes(content)
    for _ in range(4):
        control.attend()
    assert told.calls == ["retry"]
    for _ in range(10):
        control.attend()
    assert len(lines(lane, control)) == 201


def test_leftovers_go_after_a_minute(lane: Path) -> None:
    control = control_of(lane, Told(), writer=False)
    for name in ("0" * 32 + ".answer", "0" * 32 + ".sender.request.tmp", "0" * 32 + ".writer.request"):
        (lane / "control" / name).write_bytes(b"{}")
    control.attend()
    assert len(os.listdir(lane / "control")) == 3
    for path in (lane / "control").iterdir():
        os.utime(path, (1, 1))
    control.attend()
    assert os.listdir(lane / "control") == []
    assert lines(lane, control) == []


def test_a_request_is_gone_before_it_is_executed(lane: Path) -> None:
    told = Told()
    seen: list[list[str]] = []
    told.retry = lambda: seen.append(os.listdir(lane / "control"))
    control = control_of(lane, told)
    name, content = request()
    (lane / "control" / name).write_bytes(content)
    control.attend()
    assert seen == [[]]


def test_a_directory_that_is_removed_comes_back(lane: Path) -> None:
    control = control_of(lane, Told())
    (lane / "control").rmdir()
    control.attend()
    assert (lane / "control").stat().st_mode & 0o777 == 0o700
