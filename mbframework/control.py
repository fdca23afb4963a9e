"""Requests to the processes that hold a lane, as small files in the lane's ``control/``.

Promises
--------
- Only who owns the directory, or root, can ask: it has mode 0700, its owner is the lane's or the asked process's, and
  every file in it that is a link, somebody else's, writable by others, too long, malformed, too old or unknown is
  removed unexecuted. A directory that others may enter is not read at all until that is mended.
- A request is removed before it is executed: a kill executes it once or not at all. It names the boot and the instant
  up to which it holds, so that none reaches a process that comes later.
- What was asked, by whom, and what became of it stands in the event file of who answers, as a line ``control``.
- Without requests a look costs one ``lstat`` and one listing of an empty directory; it never raises.

A request's name says who is to answer it: ``<id>.writer.request`` the holder of writer.lock, ``<id>.sender.request``
that of sender.lock; the answer is ``<id>.answer``, removed by the asker. See docs/control.md.

Threads: :func:`ask` any; :class:`Control` one.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from mbframework import lockfile, pause
from mbframework.errors import DirectoryError, MessageBufferError
from mbframework.events import EventLog
from mbframework.files import Files
from mbframework.replay import Replayed
from mbframework.request import LONGEST_NS, MOST_BYTES, ROLES, Refused, Request, Role, checked, ids_of, packed
from mbframework.spool import layout

LOCKS: Final[Mapping[Role, str]] = {"writer": layout.WRITER_LOCK_FILE, "sender": layout.SENDER_LOCK_FILE}
_MOST_AT_A_LOOK = 64
_POLL = 0.05
_NAME = re.compile(r"([0-9a-f]{32})\.(writer|sender)\.request")


class ControlError(DirectoryError):
    """A request was not answered, or refused. ``nobody``: no process holds what it was for."""

    def __init__(self, message: str, *, path: str = "", nobody: bool = False) -> None:
        super().__init__(message, path=path)
        self.nobody = nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderHandlers:
    """What the holder of sender.lock does when asked. ``drop`` gets the ids of dead letters, and returns how many of
    them were there; ``purge`` returns a number of messages. What they raise of mbframework's errors and OSError is the
    answer."""

    pause: Callable[[], object]
    resume: Callable[[], object]
    retry: Callable[[], object]
    drop: Callable[[Sequence[int]], int]
    purge: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterHandlers:
    """What the holder of writer.lock does when asked. ``replay`` gets the ids of dead letters, and must not drop
    them."""

    set_mode: Callable[[str], object]
    replay: Callable[[Sequence[int]], Replayed]


# ---- asking


def ask(
    files: Files, lane_path: str, action: str, arguments: Mapping[str, Any] | None = None, timeout: float = 5.0
) -> dict[str, Any]:
    """Have the process that holds the lane do something; what it has to say.

    Actions: ``pause``, ``resume``, ``retry``; ``mode`` with "mode"; ``purge``; ``dead-replay`` and ``dead-drop`` with
    "ids", a list of at most ``MOST_IDS``, or "all": true, and then "below": one past the highest.

    :param timeout: seconds; a process looks at its requests about once a second.
    :raises ControlError: nobody holds the lane, or answers; or the answer is a refusal.
    """
    role = ROLES[action]
    _check_held(files, lane_path, role)
    place = os.path.join(lane_path, layout.CONTROL_DIRECTORY)
    _check_place(files, lane_path, place)
    number = files.random(16).hex()
    request = os.path.join(place, f"{number}.{role}.request")
    answer = os.path.join(place, f"{number}.answer")
    content = packed(
        number, action, arguments or {}, pid=os.getpid(), boot_id=files.boot_id().hex(), now=files.boot_ns(),
        timeout=timeout,
    )  # fmt: skip
    try:
        files.replace(request, content, _mode(files, place))
    except OSError as error:
        raise ControlError(f"{place}: the request cannot be stored: {error.strerror}", path=lane_path) from error
    try:
        return _await(files, lane_path, role, request, answer, timeout)
    finally:
        for path in (request, answer):
            with suppress(FileNotFoundError):
                files.unlink(path)


def _await(files: Files, lane_path: str, role: Role, request: str, answer: str, timeout: float) -> dict[str, Any]:
    deadline = files.boot_ns() + int(timeout * 1e9)
    pace = threading.Event()
    while True:
        late = files.boot_ns() >= deadline
        said = _content(files, answer)
        if said is not None:
            break
        if late:
            raise _unanswered(files, lane_path, role, taken=not os.path.lexists(request), timeout=timeout)
        pace.wait(_POLL)
    result = said.get("result")
    if said.get("ok") is True and isinstance(result, dict):
        return result
    raise ControlError(str(said.get("error") or "it was refused without a reason"), path=lane_path)


def _content(files: Files, path: str) -> dict[str, Any] | None:
    try:
        fd = files.open(path, write=False)
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(files.pread(fd, MOST_BYTES, 0))
    except (ValueError, RecursionError):
        return {"error": f"{path} cannot be read as an answer"}
    finally:
        files.close(fd)
    return facts if isinstance(facts, dict) else {}


def _check_held(files: Files, lane_path: str, role: Role) -> None:
    lane = os.path.basename(lane_path)
    lock = os.path.join(lane_path, LOCKS[role])
    try:
        files.close(files.open(lock, write=False))
    except FileNotFoundError:
        if not os.path.isdir(lane_path):
            raise ControlError(f"{lane_path} does not exist: the buffer has no lane {lane}", path=lane_path) from None
    except OSError as error:
        raise ControlError(f"lane {lane} cannot be asked: {error.strerror}", path=lane_path) from error
    if not lockfile.is_held(files, lock):
        doing = "writes to it" if role == "writer" else "sends it"
        raise ControlError(
            f"lane {lane}: nothing is running, no process {doing}; start the program, or mb drain",
            path=lane_path,
            nobody=True,
        )


def _check_place(files: Files, lane_path: str, place: str) -> None:
    try:
        why = _unsafe(files, lane_path, place)
    except FileNotFoundError:
        why = f"{place} does not exist: the process that holds the lane takes no requests; update it, or restart it"
    if why:
        raise ControlError(why, path=lane_path)
    owner = files.stat(place).st_uid
    if os.geteuid() not in (0, owner):
        raise ControlError(
            f"{place} belongs to user {owner}, and this is user {os.geteuid()}: only the owner can ask", path=lane_path
        )


def _unsafe(files: Files, lane_path: str, place: str) -> str:
    """Why requests are neither read nor written there; "" where nothing is amiss. Raises FileNotFoundError."""
    info = files.stat(place)
    if not stat.S_ISDIR(info.st_mode):
        return f"{place} is not a directory; remove what stands there"
    if info.st_mode & 0o077:
        return f"{place} has mode {stat.S_IMODE(info.st_mode):04o}, so that others could ask: run chmod 0700 {place}"
    if info.st_uid not in (os.geteuid(), files.stat(lane_path).st_uid):
        return f"{place} belongs to user {info.st_uid}, who does not own the lane; remove it"
    return ""


def _mode(files: Files, place: str) -> int:
    """The owner of the directory must read what root has stored there; nobody else gets that far."""
    return 0o600 if files.stat(place).st_uid == os.geteuid() else 0o644


def _unanswered(files: Files, lane_path: str, role: Role, *, taken: bool, timeout: float) -> ControlError:
    lane = os.path.basename(lane_path)
    who = lockfile.describe(lockfile.holder(files, os.path.join(lane_path, LOCKS[role])))
    if taken:
        text = (
            f"the request was taken, and not answered within {timeout:g} s: the lane's event files tell what came of it"
        )
    else:
        text = (
            f"no answer within {timeout:g} s ({who} holds it: stopped, very busy, or of a release that takes no "
            "requests); nothing was done"
        )
    return ControlError(f"lane {lane}: {text}", path=lane_path)


# ---- answering


class Control:
    """The requests of one lane, as the process that holds one of its locks, or both, answers them.

    :param notify: called after something was done, so that it shows at once and the next request does not wait.
    """

    def __init__(
        self,
        files: Files,
        lane_path: str,
        events: EventLog,
        *,
        sender: SenderHandlers | None = None,
        writer: WriterHandlers | None = None,
        notify: Callable[[], object] = bool,
    ) -> None:
        self._files = files
        self._lane_path = lane_path
        self._place = os.path.join(lane_path, layout.CONTROL_DIRECTORY)
        self._events = events
        self._sender = sender
        self._writer = writer
        self._notify = notify
        self._trouble = ""
        #: Names that cannot be removed, so that each is told of once.
        self._stuck: set[str] = set()

    def open(self) -> None:
        """Make the directory where it is missing. What stands in the way is told, and keeps nothing from opening."""
        try:
            with suppress(FileExistsError):
                self._files.make_directory(self._place, 0o700)
        except OSError as error:
            self._tell_trouble(f"{self._place} cannot be made: {error.strerror}: no requests are taken")

    def attend(self) -> None:
        """Answer what was asked since the last look. The reporter's thread."""
        try:
            why = _unsafe(self._files, self._lane_path, self._place)
            names = [] if why else self._files.list(self._place)
        except FileNotFoundError:
            self.open()
            return
        except OSError as error:
            why, names = f"{self._place} cannot be read: {error.strerror}", []
        if why or self._trouble:
            self._tell_trouble(why)
        # However much else lies there, requests come first.
        left = [name for name in names if name not in self._stuck]
        for name in sorted(left, key=lambda name: (not self._is_ours(name), name))[:_MOST_AT_A_LOOK]:
            self._look_at(name)
        if names:
            self._stuck.intersection_update(names)

    def _is_ours(self, name: str) -> bool:
        match = _NAME.fullmatch(name)
        return match is not None and (self._sender if match[2] == "sender" else self._writer) is not None

    def _look_at(self, name: str) -> None:
        path = os.path.join(self._place, name)
        try:
            info = self._files.stat(path)
            if not self._is_ours(name):
                # An answer that nobody took, half a request of an asker that was killed, one for whoever is gone.
                if abs(self._files.wall_ns() - info.st_mtime_ns) > LONGEST_NS:
                    self._remove(name, path)
                return
            raw = self._read(path, info)
        except FileNotFoundError:
            return
        except Refused as refused:
            self._refuse(name, path, str(refused))
            return
        except OSError as error:
            self._refuse(name, path, error.strerror or str(error))
            return
        try:
            request = checked(raw, name.partition(".")[0], self._files.boot_id().hex(), self._files.boot_ns())
        except Refused as refused:
            self._refuse(name, path, str(refused))
            return
        # Before it is executed: what is here after a kill was not.
        if self._remove(name, path):
            self._answer(request, info.st_uid)

    def _read(self, path: str, info: os.stat_result) -> bytes:
        """A request's bytes. Raises Refused, OSError."""
        if not stat.S_ISREG(info.st_mode):
            raise Refused("it is not a file")
        if info.st_uid not in (self._files.stat(self._place).st_uid, 0):
            raise Refused(f"it belongs to user {info.st_uid}")
        if info.st_mode & 0o022:
            raise Refused("others may write it")
        if info.st_nlink > 1:
            raise Refused("it has other names")
        if info.st_size > MOST_BYTES:
            raise Refused(f"it has {info.st_size:,} bytes")
        fd = self._files.open(path, write=False)
        try:
            if not os.path.samestat(info, self._files.fstat(fd)):
                raise Refused("it was replaced while it was looked at")
            return self._files.pread(fd, MOST_BYTES, 0)
        finally:
            self._files.close(fd)

    def _answer(self, request: Request, uid: int) -> None:
        facts: dict[str, Any]
        try:
            result = self._perform(request, uid)
        except (MessageBufferError, OSError) as error:
            facts = {"ok": False, "error": self._events.scrub(str(error) or type(error).__name__)}
        else:
            facts = {"ok": True, "result": result}
        told = facts.get("error") or "; ".join(
            f"{name} {value}" for name, value in result.items() if value and name != "ids"
        )
        self._events.tell("control", action=request.action, uid=uid, pid=request.pid, result=told or "done")
        content = {"schema": 1, "id": request.id, "pid": os.getpid()} | facts
        # Who has asked waits no longer than it wants to.
        with suppress(OSError):
            path = os.path.join(self._place, f"{request.id}.answer")
            self._files.replace(path, json.dumps(content).encode(), _mode(self._files, self._place))
        self._notify()

    def _perform(self, request: Request, uid: int) -> dict[str, Any]:
        action, sender, writer = request.action, self._sender, self._writer
        if sender is not None:
            if action == "pause":
                sender.pause()
                self._keep(lambda: pause.store(self._files, self._lane_path, uid), "paused, though not beyond its end")
                return {}
            if action == "resume":
                sender.resume()
                self._keep(
                    lambda: pause.lift(self._files, self._lane_path), "resumed, though paused again after its end"
                )
                return {}
            if action == "retry":
                sender.retry()
                return {}
            if action == "dead-drop":
                return {"dropped": sender.drop(ids_of(request.arguments))}
            if action == "purge":
                return {"purged": sender.purge()}
        if writer is not None:
            if action == "mode":
                writer.set_mode(request.arguments["mode"])
                return {"mode": request.arguments["mode"]}
            if action == "dead-replay":
                done = writer.replay(ids_of(request.arguments))
                dropped = sender.drop(done.ids) if sender is not None and done.ids else 0
                return {"replayed": len(done.ids), "ids": done.ids, "dropped": dropped, "why": done.why}
        raise ControlError(f"{action} is not for this process", path=self._lane_path)

    def _keep(self, act: Callable[[], object], otherwise: str) -> None:
        try:
            act()
        except OSError as error:
            raise ControlError(f"the process has {otherwise}: {error.strerror}", path=self._lane_path) from error

    def _refuse(self, name: str, path: str, why: str) -> None:
        self._events.tell("control", action="", uid=-1, pid=-1, result=f"refused {name[:80]}: {why}")
        self._remove(name, path)

    def _remove(self, name: str, path: str) -> bool:
        try:
            self._files.unlink(path)
        except FileNotFoundError:
            return False
        except OSError:
            # A directory, for one. It is left alone from now on.
            self._stuck.add(name)
            return False
        return True

    def _tell_trouble(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            self._events.tell("control", action="", uid=-1, pid=-1, result=why or "requests are taken again")
