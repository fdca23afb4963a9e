"""Which lane an opening gets: its own, a free orphan, or a new one.

Promises: a lane has one writer and one sender, by their locks. What is wrong with the configuration is found before
anything is made; a lane that cannot be opened leaves no lock behind.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mbframework import directory as directories
from mbframework import lockfile
from mbframework.admission import MEMORY_ONLY
from mbframework.budget import Budget
from mbframework.engine import Engine
from mbframework.errors import BufferLocked, ConfigurationError, DirectoryError, NewerFormat, UnsupportedFormat
from mbframework.files import Files
from mbframework.lockfile import LockFile
from mbframework.observers import ObserverHub
from mbframework.spool import layout

if TYPE_CHECKING:
    from mbframework.config import Config
    from mbframework.plugins.source import ProviderSource


def open_engine(files: Files, config: Config, source: ProviderSource | None, budget: Budget | None = None) -> Engine:
    """Open a lane of the buffer in ``config.directory``, as its writer and, with a source, its sender. ``budget``: what
    it shares with other lanes.

    :raises ConfigurationError: the options do not go together; nothing was made.
    :raises PluginError: an observer cannot be used; nothing was made.
    :raises DirectoryError: see the branches; BufferLocked names the holder. Also where the device fails.
    """
    if config.directory is None:
        raise ConfigurationError(
            "no directory is given; expected the path of the buffer's directory", option="directory"
        )
    if source is None and config.mode in MEMORY_ONLY:
        raise ConfigurationError(
            f"{config.label('mode')}: {config.mode!r} keeps nothing on disk and needs a provider; expected one, or "
            "mode 'always'",
            option="mode",
        )
    with config.naming("observers"):
        hub = ObserverHub(config.observers) if config.observers else None
    with config.naming("directory"):
        directory = directories.prepare(files, config.directory, config)
    refused = ""
    for number in range(1, config.max_lanes + 1):
        name = config.lane if number == 1 else f"{config.lane}-{number}"
        path = directory.lane_path(name)
        locks = [layout.WRITER_LOCK_FILE] + ([layout.SENDER_LOCK_FILE] if source is not None else [])
        held: list[LockFile] = []
        try:
            directories.make_lane(files, directory, name, config)
            for lock_name in locks:
                lock_path = os.path.join(path, lock_name)
                lock = LockFile.take(files, lock_path, config.lock_timeout if number == 1 else 0.0)
                if lock is None:
                    who = lockfile.describe(lockfile.holder(files, lock_path))
                    refused = refused or f"{lock_path} is held by {who}"
                    break
                held.append(lock)
            else:
                writer_lock, sender_lock = held[0], held[1] if source is not None else None
                engine = Engine(files, config, source, directory, name, writer_lock, sender_lock, hub, budget)
                held = []
                return engine
        except UnsupportedFormat as error:
            if config.on_newer == "refuse":
                raise NewerFormat(
                    f"lane {name} of {directory.path}: {error}; or open it with on_newer='fresh-lane', which breaks "
                    "the order",
                    path=directory.path,
                ) from error
            refused = refused or str(error)
            continue
        except OSError as error:
            raise DirectoryError(
                f"lane {name} of {directory.path} cannot be opened: {error}; look at the device and its space, then "
                "open it again: what it holds is kept",
                path=path,
            ) from error
        finally:
            for lock in held:
                lock.release()
        if not config.share:
            break
    raise BufferLocked(
        f"{refused}; " + ("max_lanes is reached" if config.share else "share=True would take a lane of its own"),
        path=directory.path,
        holder=refused,
    )
