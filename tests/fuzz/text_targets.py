"""Fuzzing of what reads JSON and names: event lines, requests, answers, the small files of a lane and of a buffer."""

from __future__ import annotations

import json
import os
from random import Random

from mbframework import directory, lockfile, pause
from mbframework.control import Control, WriterHandlers, _content
from mbframework.errors import DirectoryError
from mbframework.events import EventLog
from mbframework.monitor.events import MAX_LINE, EventFiles, lines_from_end, parse
from mbframework.replay import Replayed
from mbframework.request import Refused, checked, ids_of
from mbframework.spool import layout
from mbframework.status import read_narration
from tests.fuzz import mutation, narration
from tests.fuzz.memory import BOOT, LANE, NOW_NS
from tests.fuzz.target import Input, Target, opened

NUMBER = "0123456789abcdef" * 2


class Events(Target):
    """Lines of an event file, in words; and the lines themselves, from the end."""

    name = "events"
    share = 6

    def make(self, chance: Random) -> Input:
        lines = [narration.event_line(chance) for _ in range(chance.randrange(1, 6))]
        lines = [narration.distort(line, chance) if chance.random() < 0.7 else line for line in lines]
        data = bytearray(b"\n".join(lines))
        if chance.random() < 0.05:
            at = chance.randrange(len(data))
            data[at:at] = b"x" * chance.choice((MAX_LINE, 2 * MAX_LINE, MAX_LINE - len(data)))
        if chance.random() < 0.3:
            mutation.resize(data, chance)
        return Input({layout.WRITER_EVENTS_FILE: bytes(data)})

    def check(self, given: Input) -> None:
        data = given.files[layout.WRITER_EVENTS_FILE]
        with opened(given) as files:
            fd = files.open(os.path.join(LANE, layout.WRITER_EVENTS_FILE))
            lines = list(lines_from_end(files, fd, len(data)))
            files.close(fd)
            whole = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
            assert lines == [line for line in reversed(whole) if len(line) <= MAX_LINE]
            for line in lines:
                event = parse(line, "main")
                if event is not None:
                    assert len(event.text) <= 400 * 10
                    assert event.text.isprintable()
                    assert event.kind.isprintable()
                    event.text.encode()
            events = EventFiles(files, LANE, "main")
            events.last(100)
            assert events.prunes() <= data.count(b'"kind": "prune"')


def check_words(error: Exception) -> None:
    """An error that quotes a hostile file quotes little of it."""
    assert 0 < len(str(error)) < 1000


class Requests(Target):
    """A request in ``control/``: refused, or one of its kind; and what the engine does with the file."""

    name = "control"
    share = 9

    def make(self, chance: Random) -> Input:
        raw = narration.request(chance, NUMBER)
        name = f"{NUMBER}.writer.request"
        if chance.random() < 0.1:
            name = chance.choice((f"{NUMBER}.answer", "x", f"{NUMBER}.writer.request.tmp", f"{NUMBER}.sender.request"))
        return Input({f"control/{name}": narration.distort(raw, chance)})

    def check(self, given: Input) -> None:
        ((name, raw),) = given.files.items()
        try:
            request = checked(raw, NUMBER, BOOT.hex(), NOW_NS)
            assert request.action in narration.ACTIONS
            ids = ids_of(request.arguments)
            assert len(ids) <= 10_000 or isinstance(ids, range)
        except Refused as refused:
            check_words(refused)
        asked: list[str] = []
        handlers = WriterHandlers(set_mode=asked.append, replay=lambda ids: Replayed(tuple(ids[:3]), ""))
        with opened(given) as files:
            events = EventLog(files, os.path.join(LANE, "events"), directory=LANE, lane="main")
            control = Control(files, LANE, events, writer=handlers)
            control.attend()
            assert os.path.join(LANE, name) not in files.inodes or not name.endswith(".writer.request")
            events.flush()
            told = files.content().get("events", b"")
            assert all(json.loads(line)["kind"] == "control" for line in told.splitlines())


class SmallFiles(Target):
    """The other files that hold JSON: ``buffer.json``, a lock, a pause, a status file, an answer."""

    name = "small files"
    share = 5

    def make(self, chance: Random) -> Input:
        raw = json.dumps(
            {
                "format": 1, "id": "ab" * 16, "inodes": [1, 2], "created": "2024", "pid": 1, "host": "h",
                "boot": BOOT.hex(), "since": 1.0, "at": 1.0, "uid": 0, "ok": True, "result": {}, "error": "",
            }
        ).encode()  # fmt: skip
        return Input({"file": narration.distort(raw, chance)})

    def check(self, given: Input) -> None:
        data = given.files["file"]
        names = {"../buffer.json": data, "writer.lock": data, "paused": data, "status.writer.json": data, "a": data}
        with opened(Input(names)) as files:
            path = {name: os.path.normpath(os.path.join(LANE, name)) for name in names}
            files.inodes["/buffer/buffer.json"] = files.inodes.pop(os.path.join(LANE, "../buffer.json"))
            try:
                assert len(bytes.fromhex(directory.read(files, "/buffer")["id"])) == 16
            except DirectoryError as error:
                check_words(error)
            facts = lockfile.holder(files, path["writer.lock"])
            assert len(lockfile.describe(facts)) < 200
            lockfile.holder_lives(files, facts)
            paused = pause.read(files, LANE)
            assert paused is not None
            assert paused.words
            assert isinstance(read_narration(files, path["status.writer.json"]), dict)
            answer = _content(files, path["a"])
            assert answer is not None
