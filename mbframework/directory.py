"""The directory of a buffer: is it ours, is it safe, is it still the one that was made here?

Promises
--------
- What is not a buffer, may be written by strangers, or was made by a newer release is refused by name, and nothing
  in it is touched. What can be checked is checked before anything is created.
- A copied or restored directory is noticed by the inodes of the directory and of ``buffer.json``; it opens and
  takes writes, and nothing is sent until told which it is.
- Only file systems on which a shared map is known to be safe are mapped; network file systems are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mbframework.errors import ConfigurationError, DirectoryError, NewerFormat, NotABuffer, UnsafeDirectory
from mbframework.files import MAPPABLE, NETWORK, Files
from mbframework.spool import layout

if TYPE_CHECKING:
    from mbframework.config import Config

#: What an empty file system may hold.
_HARMLESS = frozenset({"lost+found"})
#: What the name of a ``buffer.json`` goes on with while it is being written.
_DRAFT = ".new."
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
        return os.path.join(self.path, layout.DEAD_DIRECTORY, lane)

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
            if stat.S_ISDIR(files.stat(os.path.join(path, name)).st_mode) and _is_lane(os.path.join(path, name)):
                found.append(name)
        except FileNotFoundError:
            continue
    return sorted(found, key=lambda name: (name != layout.MAIN_LANE, len(name), name))


def _is_lane(path: str) -> bool:
    # The lock is its first file; a backup may have left that out.
    return any(os.path.lexists(os.path.join(path, name)) for name in (layout.WRITER_LOCK_FILE, layout.HEAD_FILE))


def read(files: Files, path: str, file: str = layout.BUFFER_FILE) -> dict[str, Any]:
    """What ``buffer.json`` says.

    :raises NotABuffer: there is none, or it is not one of ours.
    :raises NewerFormat: it was written by a newer release.
    """
    name = os.path.join(path, file)
    try:
        fd = files.open(name, write=False)
    except FileNotFoundError:
        raise NotABuffer(f"{path} is not a buffer: it has no {file}", path=path) from None
    except PermissionError as error:
        raise DirectoryError(
            f"{name} cannot be read: {error.strerror}; run as the user who owns it", path=path
        ) from None
    except OSError as error:
        raise DirectoryError(f"{name} cannot be read: {error.strerror}; expected a file", path=path) from error
    try:
        facts = json.loads(files.pread(fd, 1 << 16, 0))
        major = facts["format"]
        if type(major) is not int or major < 1:
            raise ValueError("the format is not a number from 1 on")
        # Before the rest, which a newer format may have changed.
        if major > layout.FORMAT_MAJOR:
            raise NewerFormat(
                f"{path} has format {major}; this release knows format {layout.FORMAT_MAJOR}: update mbframework, "
                "nothing was touched",
                path=path,
            )
        if len(bytes.fromhex(facts["id"])) != layout.ID_SIZE:
            raise ValueError("the id is not 32 hex digits")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotABuffer(
            f"{name} is not the file of a buffer ({error}); restore it from the copy in a lane's status, or give "
            "another directory",
            path=path,
        ) from None
    finally:
        files.close(fd)
    result: dict[str, Any] = facts
    return result


def prepare(files: Files, path: str, config: Config) -> Directory:
    """Check the directory and make it where it is missing.

    :raises DirectoryError: it cannot be used; the branches say why.
    :raises ConfigurationError: ``fsync="always"`` on a file system that keeps nothing.
    """
    path = os.path.abspath(path)
    exists = os.path.lexists(path)
    kind = _check_file_system(files, path if exists else os.path.dirname(path), config)
    if exists:
        _check_safe(files, path, config)
        names = set(_list(files, path)) - _HARMLESS
        # Looked at after the list, which may lack what another process has just made.
        fresh = not os.path.lexists(os.path.join(path, layout.BUFFER_FILE)) and not _finish(files, path, names)
        foreign = {name for name in names if not _is_draft(name)}
        if fresh and foreign:
            raise NotABuffer(
                f"{path} holds other files ({min(foreign)!r:.60}) and no {layout.BUFFER_FILE}: give an empty or a new "
                "directory",
                path=path,
            )
    else:
        fresh = True
        try:
            files.make_directory(path, config.dir_mode)
        except FileExistsError:
            # Somebody has just made it: perhaps one of us.
            _check_safe(files, path, config)
            fresh = layout.BUFFER_FILE not in _list(files, path)
        except OSError as error:
            raise DirectoryError(f"{path} cannot be made: {error.strerror}", path=path) from error
        else:
            files.sync_directory(os.path.dirname(path))
    if fresh:
        # Two processes may begin at once: the one that finds the name taken reads what the other wrote.
        with contextlib.suppress(FileExistsError):
            _create(files, path)
    facts = read(files, path)
    barred = ""
    if not _same_place(files, path, facts):
        if config.identity is None:
            barred = _ELSEWHERE
        else:
            facts = _rewrite(files, path, facts, new=config.identity == "new-identity")
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
    except OSError as error:
        raise DirectoryError(f"{path} cannot be made: {error.strerror}", path=path) from error
    return path


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
    if not os.path.isdir(path) and not os.path.lexists(path):
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
            f"fsync='always' on {kind}, which keeps nothing when the machine stops; expected a disk: use another "
            "directory, or fsync='never'",
            option="fsync",
        )
    return kind


def _create(files: Files, path: str) -> None:
    facts = {"id": files.random(layout.ID_SIZE).hex(), "created": _now(files)}
    _store(files, path, facts, replace=False)


def _rewrite(files: Files, path: str, facts: dict[str, Any], *, new: bool) -> dict[str, Any]:
    # Another process may be about the same; the one that finds the name taken reads what the other wrote.
    if new:
        facts = facts | {"id": files.random(layout.ID_SIZE).hex(), "was": facts["id"], "created": _now(files)}
    with contextlib.suppress(FileExistsError):
        _store(files, path, facts, replace=True)
    return read(files, path)


def _store(files: Files, path: str, facts: dict[str, Any], *, replace: bool) -> None:
    name = os.path.join(path, layout.BUFFER_FILE)
    # Not by the number of the process, which in a container is the same after every restart.
    temporary = f"{name}{_DRAFT}{files.random(4).hex()}"
    fd = files.open(temporary, create=True, exclusive=True)
    try:
        inodes = [files.stat(path).st_ino, files.fstat(fd).st_ino]
        content = {"format": layout.FORMAT_MAJOR} | facts | {"inodes": inodes}
        files.pwrite(fd, json.dumps(content, indent=1).encode() + b"\n", 0)
        files.datasync(fd)
    finally:
        files.close(fd)
    if replace:
        with contextlib.suppress(FileNotFoundError):
            files.unlink(name)
    try:
        files.link(temporary, name)
    finally:
        files.unlink(temporary)
    files.sync_directory(path)


def _is_draft(name: str) -> bool:
    return name.startswith(layout.BUFFER_FILE + _DRAFT)


def _finish(files: Files, path: str, names: set[str]) -> bool:
    """Give ``buffer.json`` its name where a kill has taken it away: it was whole, on the device, under another."""
    if not any(os.path.lexists(os.path.join(path, name, layout.HEAD_FILE)) for name in names):
        return False
    for draft in sorted(filter(_is_draft, names)):
        with contextlib.suppress(NotABuffer, FileExistsError):
            read(files, path, draft)
            files.link(os.path.join(path, draft), os.path.join(path, layout.BUFFER_FILE))
            files.unlink(os.path.join(path, draft))
            files.sync_directory(path)
            return True
    return False


def _same_place(files: Files, path: str, facts: dict[str, Any]) -> bool:
    name = os.path.join(path, layout.BUFFER_FILE)
    return facts.get("inodes") == [files.stat(path).st_ino, files.stat(name).st_ino]


def _now(files: Files) -> str:
    return datetime.fromtimestamp(files.wall_ns() / 1e9, UTC).isoformat(timespec="seconds")
