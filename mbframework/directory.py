"""The directory of a buffer: is it ours, is it safe, is it still the one that was made here?

Promises
--------
- What is not a buffer, may be written by strangers, or was made by a newer release is refused by name, and nothing
  in it is touched; so is a lane in which something else stands in the place of a file. What can be checked is checked
  before anything is created.
- A copied or restored directory is noticed by the inodes of the directory and of ``buffer.json``; it opens and
  takes writes, and nothing is sent until told which it is. Where several processes are told at once, the first
  one's word holds, for all of them.
- ``buffer.json`` gets its name when it is whole and on the device. Until then it is a draft, locked by who writes it:
  what a killed process left of one is finished, or removed, by a later opening, and never somebody else's.
- Only file systems on which a shared map is known to be safe are mapped; network file systems are refused.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mbframework.errors import ConfigurationError, DirectoryError, NewerFormat, NotABuffer, UnsafeDirectory
from mbframework.files import MAPPABLE, NETWORK, Files, kind_of
from mbframework.spool import layout

if TYPE_CHECKING:
    from mbframework.config import Config

#: What an empty file system may hold.
_HARMLESS = frozenset({"lost+found"})
#: What the name of a ``buffer.json`` goes on with while it is being written.
_DRAFT = ".new."
#: Seconds: how long another process may take to write a ``buffer.json``, and how often it is looked at.
_PATIENCE = 10.0
_POLL = 0.01
_ELSEWHERE = (
    "this directory is not the one that the buffer was made in (copied or restored?): nothing is sent until it is "
    "opened with identity='adopt' (the original is gone) or identity='new-identity' (both go on)"
)


@dataclass(frozen=True, slots=True)
class Directory:
    """A buffer's directory, checked. ``barred``: why nothing may be sent from it; "" where nothing is amiss."""

    path: str
    buffer_id: bytes
    created: str
    mapped: bool
    file_system: str
    barred: str = ""

    def lane_path(self, lane: str) -> str:
        """Where a lane lives."""
        return os.path.join(self.path, lane)

    def dead_path(self, lane: str) -> str:
        """Where its dead letters live."""
        return layout.dead_path(self.lane_path(lane))

    def lanes(self, files: Files) -> list[str]:
        """The names of the lanes, ``main`` first."""
        return lanes_of(files, self.path)


def lanes_of(files: Files, path: str) -> list[str]:
    """The lanes in a buffer's directory; what else stands there is left alone. Raises OSError."""
    found = []
    for name in files.list(path):
        if name in (layout.DEAD_DIRECTORY, *_HARMLESS) or name.startswith("."):
            continue
        try:
            if stat.S_ISDIR(files.stat(os.path.join(path, name)).st_mode) and _is_lane(files, os.path.join(path, name)):
                found.append(name)
        except FileNotFoundError:
            continue
    return sorted(found, key=lambda name: (name != layout.MAIN_LANE, len(name), name))


def _is_lane(files: Files, path: str) -> bool:
    # The lock is its first file; a backup may have left that out.
    for name in (layout.WRITER_LOCK_FILE, layout.HEAD_FILE):
        try:
            files.stat(os.path.join(path, name))
        except FileNotFoundError:
            continue
        except PermissionError:
            # Taken for one: who reads it is told, and does not believe that nothing was written.
            return True
        return True
    return False


def read(files: Files, path: str) -> dict[str, Any]:
    """What ``buffer.json`` says.

    :raises NotABuffer: there is none, or it is not one of ours.
    :raises NewerFormat: it was written by a newer release.
    :raises DirectoryError: it cannot be read.
    """
    fd = _open(files, path)
    if fd is None:
        raise NotABuffer(f"{path} is not a buffer: it has no {layout.BUFFER_FILE}", path=path)
    try:
        return _facts(files, fd, path)
    finally:
        files.close(fd)


def _open(files: Files, path: str) -> int | None:
    """The file, or None where there is none."""
    name = os.path.join(path, layout.BUFFER_FILE)
    try:
        return files.open(name, write=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DirectoryError(f"{name} cannot be read: {error.strerror}", path=path) from error


def _facts(files: Files, fd: int, path: str) -> dict[str, Any]:
    name = os.path.join(path, layout.BUFFER_FILE)
    try:
        facts = json.loads(files.pread(fd, 1 << 16, 0))
        major = facts["format"]
        if type(major) is not int or major < 1:
            raise ValueError("the format is not a number from 1 on")
        # Before the rest, which a newer format may have changed.
        if major > max(layout.FORMATS):
            raise NewerFormat(
                f"{path} has format {major}; this release knows format {max(layout.FORMATS)}: update mbframework, "
                "nothing was touched",
                path=path,
            )
        if len(bytes.fromhex(facts["id"])) != layout.ID_SIZE:
            raise ValueError("the id is not 32 hex digits")
    except OSError as error:
        raise NotABuffer(
            f"{name} cannot be read ({error.strerror}); run mb repair on {path}, which makes it anew from what the "
            "lanes say, or put back a copy of this file",
            path=path,
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotABuffer(
            f"{name} is not the file of a buffer ({error}); run mb repair on it, or give another directory",
            path=path,
        ) from None
    result: dict[str, Any] = facts
    return result


def prepare(files: Files, path: str, config: Config) -> Directory:
    """Check the directory and make it where it is missing.

    :raises DirectoryError: it cannot be used; the branches say why. Also where the device fails or is full: what is
        there then is as before, or an empty directory, and a later call goes on.
    :raises ConfigurationError: ``fsync="always"`` on a file system that keeps nothing.
    """
    path = os.path.abspath(path)
    try:
        return _prepare(files, path, config)
    except OSError as error:
        # Which call failed is no help to anybody; that of a full disk does not even name the file.
        raise DirectoryError(
            f"{path} cannot be used as a buffer: {error.strerror or error}; look at the device and its space, then "
            "open it again",
            path=path,
        ) from error


def _prepare(files: Files, path: str, config: Config) -> Directory:
    exists = files.exists(path)
    kind = _check_file_system(files, path if exists else os.path.dirname(path), config)
    if not exists:
        try:
            files.make_directory(path, config.dir_mode)
            files.sync_directory(os.path.dirname(path))
        except FileExistsError:
            # Somebody has just made it: perhaps one of us.
            exists = True
        except OSError as error:
            raise _not_made(path, error) from error
    if exists:
        _check_safe(files, path, config)
    facts, barred = _identify(files, path, config)
    _tidy(files, path)
    return Directory(path, bytes.fromhex(facts["id"]), str(facts.get("created", "")), kind in MAPPABLE, kind, barred)


def make_lane(files: Files, directory: Directory, lane: str, config: Config) -> str:
    """The lane's directory, made where it is missing.

    :raises DirectoryError: it cannot be made, or is something else.
    """
    path = directory.lane_path(lane)
    try:
        files.make_directory(path, config.dir_mode)
        files.sync_directory(directory.path)
    except FileExistsError:
        info = files.stat(path)
        if not stat.S_ISDIR(info.st_mode):
            raise UnsafeDirectory(f"{path} is not a directory; remove what stands there", path=path) from None
        _check_owner(path, info, config)
        _check_regular(files, path)
    except OSError as error:
        raise _not_made(path, error) from error
    return path


def _not_made(path: str, error: OSError) -> DirectoryError:
    return DirectoryError(
        f"{path} cannot be made: {error.strerror}; look at the rights, the device and the space of "
        f"{os.path.dirname(path)}",
        path=path,
    )


def _check_regular(files: Files, path: str) -> None:
    """Refuse what stands in the place of a lane's file and is none: nobody is to wait for it, or to write into it."""
    for name in layout.LANE_FILES:
        try:
            mode = files.stat(os.path.join(path, name)).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            raise DirectoryError(
                f"{path} cannot be used: {kind_of(mode)}, not a regular file, stands there as {name!r}; move it away, "
                "or put the file in its place",
                path=path,
            )


def _list(files: Files, path: str) -> list[str]:
    try:
        return files.list(path)
    except OSError as error:
        raise DirectoryError(f"{path} cannot be listed: {error.strerror}", path=path) from error


def _check_safe(files: Files, path: str, config: Config) -> None:
    info = files.stat(path)
    if stat.S_ISLNK(info.st_mode):
        raise UnsafeDirectory(f"{path} is a symbolic link; give the directory itself", path=path)
    if not stat.S_ISDIR(info.st_mode):
        raise NotABuffer(f"{path} is not a directory", path=path)
    _check_owner(path, info, config)


def _check_owner(path: str, info: os.stat_result, config: Config) -> None:
    user = os.geteuid()
    if user not in (0, info.st_uid) and not config.dir_mode & info.st_mode & stat.S_IWGRP:
        raise UnsafeDirectory(f"{path} belongs to user {info.st_uid}, and this is user {user}", path=path)
    forbidden = info.st_mode & (stat.S_IWOTH | stat.S_IWGRP) & ~config.dir_mode
    if forbidden:
        raise UnsafeDirectory(
            f"{path} may be written by others (mode {stat.S_IMODE(info.st_mode):04o}): run chmod "
            f"{stat.S_IMODE(info.st_mode) & ~forbidden:04o}, or allow a group with dir_mode",
            path=path,
        )


def _check_file_system(files: Files, path: str, config: Config) -> str:
    if not files.exists(path):
        raise DirectoryError(f"{path} does not exist; make the parent directory first", path=path)
    kind = files.file_system(path)
    if kind in NETWORK and not config.force_filesystem:
        raise DirectoryError(
            f"{path} is on {kind}, where locks and renames cannot be trusted between hosts: use a local disk, or "
            "force_filesystem=True at your own risk",
            path=path,
        )
    if config.fsync == "always" and kind in ("tmpfs", "ramfs"):
        raise ConfigurationError(
            f"fsync: 'always' on {kind}, which keeps nothing when the machine stops; expected a disk: use another "
            "directory, or fsync='never'",
            option="fsync",
        )
    return kind


def _is_fresh(files: Files, path: str) -> bool:
    """Whether a ``buffer.json`` is to be made; False where there is one, found or finished.

    :raises NotABuffer: the directory holds something else.
    """
    for waited in _attempts(files):
        names = set(_list(files, path)) - _HARMLESS
        # Looked at after the list, which may lack what another process has just made.
        if files.exists(os.path.join(path, layout.BUFFER_FILE)):
            return False
        drafts = set(filter(_is_draft, names))
        foreign = names - drafts
        if not foreign:
            return True
        if _finish(files, path, drafts, lanes=foreign):
            return False
        if waited or not any(_is_written(files, os.path.join(path, draft)) for draft in drafts):
            raise NotABuffer(
                f"{path} holds other files ({min(foreign)!r:.60}) and no {layout.BUFFER_FILE}: give an empty or a new "
                "directory",
                path=path,
            )
    raise AssertionError("the last attempt raises")


def _attempts(files: Files) -> Iterator[bool]:
    """False now and then, while another process may be about to finish; True at last."""
    deadline = files.boot_ns() + int(_PATIENCE * 1e9)
    pause = threading.Event()
    while files.boot_ns() < deadline:
        yield False
        pause.wait(_POLL)
    yield True


def _create(files: Files, path: str) -> None:
    _store(files, path, {"id": files.random(layout.ID_SIZE).hex(), "created": _now(files)}, replace=False)


def _identify(files: Files, path: str, config: Config) -> tuple[dict[str, Any], str]:
    """What ``buffer.json`` says, and why nothing may be sent; it is rewritten where the caller says what a copy is."""
    for _ in _attempts(files):
        if _is_fresh(files, path):
            _create(files, path)
        fd = _open(files, path)
        if fd is None:
            # Another process has taken the old one away, and is about to put the new one in its place.
            continue
        try:
            facts = _facts(files, fd, path)
            if facts.get("inodes") == [files.stat(path).st_ino, files.fstat(fd).st_ino]:
                return facts, ""
            if config.identity is None:
                return facts, _ELSEWHERE
            # Its lock is for who replaces it; what was replaced meanwhile is read anew.
            if files.lock(fd) and files.is_at(fd, os.path.join(path, layout.BUFFER_FILE)):
                _replace(files, path, facts, new=config.identity == "new-identity")
        finally:
            files.close(fd)
    raise DirectoryError(
        f"{path} is being given an identity by another process, which does not get on with it; end that", path=path
    )


def _replace(files: Files, path: str, facts: dict[str, Any], *, new: bool) -> None:
    if new:
        facts = facts | {"id": files.random(layout.ID_SIZE).hex(), "was": facts["id"], "created": _now(files)}
    _store(files, path, facts, replace=True)


def _store(files: Files, path: str, facts: dict[str, Any], *, replace: bool) -> None:
    """Write a ``buffer.json``, or find that another process has done so in the meantime."""
    name = os.path.join(path, layout.BUFFER_FILE)
    temporary, fd = _draft(files, name)
    try:
        inodes = [files.stat(path).st_ino, files.fstat(fd).st_ino]
        content = {"format": layout.FORMAT_MAJOR} | facts | {"inodes": inodes}
        files.pwrite(fd, json.dumps(content, indent=1).encode() + b"\n", 0)
        files.datasync(fd)
        if replace:
            files.unlink(name)
        with contextlib.suppress(FileExistsError):
            files.link(temporary, name)
    finally:
        # Where the name is gone and the link failed, the draft is all that is left of the identity.
        if not replace or files.exists(name):
            with contextlib.suppress(OSError):
                files.unlink(temporary)
        files.close(fd)
    files.sync_directory(path)


def _draft(files: Files, name: str) -> tuple[str, int]:
    """A new draft and its descriptor, which holds its lock."""
    while True:
        # Not by the number of the process, which in a container is the same after every restart.
        temporary = f"{name}{_DRAFT}{files.random(4).hex()}"
        fd = files.open(temporary, create=True, exclusive=True)
        # Until it is locked, it may be taken for one that a killed process left.
        if files.lock(fd) and files.is_at(fd, temporary):
            return temporary, fd
        files.close(fd)


def _is_draft(name: str) -> bool:
    return name.startswith(layout.BUFFER_FILE + _DRAFT)


@contextlib.contextmanager
def _abandoned(files: Files, draft: str) -> Iterator[int]:
    """A draft, locked, whose writer is gone.

    :raises OSError: it has a writer (BlockingIOError), is gone, or is no draft.
    """
    # Only its lock is wanted; it may have its second name already.
    fd = files.open(draft, write=False)
    try:
        if not files.lock(fd):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing it", draft)
        if not files.is_at(fd, draft):
            raise FileNotFoundError(errno.ENOENT, "it is finished", draft)
        yield fd
    finally:
        files.close(fd)


def _is_written(files: Files, draft: str) -> bool:
    """Whether another process is at work on a draft, or has just been."""
    try:
        with _abandoned(files, draft):
            return False
    except (BlockingIOError, FileNotFoundError):
        return True
    except OSError:
        return False


def _finish(files: Files, path: str, drafts: Iterable[str], *, lanes: Iterable[str]) -> bool:
    """Give ``buffer.json`` its name where a kill has taken it away: it was whole, on the device, under another."""
    if not any(files.exists(os.path.join(path, lane, layout.HEAD_FILE)) for lane in lanes):
        return False
    for draft in sorted(drafts):
        with contextlib.suppress(OSError, NotABuffer), _abandoned(files, os.path.join(path, draft)) as fd:
            _facts(files, fd, path)
            files.link(os.path.join(path, draft), os.path.join(path, layout.BUFFER_FILE))
            files.sync_directory(path)
            return True
    return False


def _tidy(files: Files, path: str) -> None:
    """Remove what killed processes left of a ``buffer.json`` that there is."""
    for draft in filter(_is_draft, _list(files, path)):
        # Somebody else's, or no draft at all; a device that refuses this lets it be done later.
        with contextlib.suppress(OSError), _abandoned(files, os.path.join(path, draft)):
            files.unlink(os.path.join(path, draft))


def _now(files: Files) -> str:
    return datetime.fromtimestamp(files.wall_ns() / 1e9, UTC).isoformat(timespec="seconds")
