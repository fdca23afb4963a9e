"""The configuration of a buffer: every option, its default and its rules, in one place.

A :class:`Config` is checked when it is made and cannot change afterwards; who
holds one may rely on every value being in range, in base units (bytes, seconds
as float, messages per second), and on the rules between options. Keyword
arguments, TOML files, the environment and the table in docs/configuration.md
all read the declarations below; ``python -m mbframework.config_reference``
prints the table.

Making one creates nothing and touches no file but the one it is read from. A
mistake raises :class:`~mbframework.errors.ConfigurationError`, which names the
source, the option and what was expected. Any thread may use a Config.
"""

# Each default below is a dataclasses.field(), made by a function that ruff cannot look into.
# ruff: noqa: RUF009

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from mbframework import config_sources
from mbframework.config_option import (
    Option,
    choice,
    count,
    file_mode,
    flag,
    lane_name,
    names,
    option_of,
    path,
    rate,
    size,
    table,
    time,
    url,
)
from mbframework.config_sources import KEYWORDS, Layer
from mbframework.errors import ConfigurationError, DirectoryError, PluginError
from mbframework.units import GiB, KiB, MiB, format_size, format_time

Mode = Literal["block", "raise", "buffer", "always"]
MODES: tuple[Mode, ...] = get_args(Mode)
OnFull = Literal["prune", "block", "reject"]
Fsync = Literal["always", "interval", "never"]
CatchUp = Literal["ramp", "full"]
Identity = Literal["adopt", "new-identity"]
OnNewer = Literal["refuse", "fresh-lane"]

#: total_size holds at least this many segments: what is pruned is then a quarter of the buffer at most.
MIN_SEGMENTS = 4
MIN_SEGMENT_SIZE = 64 * KiB

_WHAT, _MODE, _DISK, _SAFETY = "What goes where", "Live and buffering", "On disk", "Durability"
_SENDING, _SHARING, _OPENING = "Sending", "Several processes", "Opening and closing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All options, in base units. Unlike here, the ``from_…`` methods are typed to take texts such as "64MiB".

    :raises ConfigurationError: a value is not what was expected, or two do not go together.
    """

    directory: str | None = path(_WHAT, "The buffer's directory; a relative path counts from the working directory.")
    provider: str | None = url(
        _WHAT,
        "The URL of the provider; none only writes, and another process sends (`mb drain`). Never shown: it may hold "
        "a password.",
    )
    provider_options: Mapping[str, object] = table(
        _WHAT, "Options of the provider, beside those in its URL. Never shown."
    )
    lane: str = lane_name("main", _WHAT, "The lane to write to: an ordered stream with its own files and sender.")
    lanes: Mapping[str, object] = table(
        _WHAT,
        "Lanes for groups of topics, by name, each with its `topics` and the options that differ: for `RoutedBuffer`, "
        "and for `mb drain`, which sends each lane with its own provider. See docs/lanes.md. Never shown.",
    )
    observers: tuple[object, ...] = names(_WHAT, "Installed observers to activate, by name, or objects.")

    mode: Mode = choice(
        "buffer",
        _MODE,
        "What `write()` does about provider trouble: wait (`block`), raise (`raise`), go to disk until the provider "
        "has caught up (`buffer`), or go to disk always (`always`). May change while running.",
        get_args(Mode),
    )
    channel_messages: int = count(
        16_384, _MODE, "Live: messages waiting in memory, from which on the lane starts buffering.", most=32_768
    )
    channel_bytes: int = size(
        4 * MiB,
        _MODE,
        "Live: bytes waiting in memory, from which on the lane starts buffering.",
        least=64 * KiB,
        most=8 * MiB,
    )
    live_wait: float = time(
        1.0, _MODE, "Live: the oldest message in memory waits that long before the lane starts buffering.", least=0.001
    )
    live_after: float = time(
        1.0, _MODE, "Draining: the provider must have kept up for that long before the lane is live again."
    )

    segment_size: int = size(
        32 * MiB,
        _DISK,
        "Where a segment file ends. Not given, it is at most a quarter of `total_size`. A message is at most a "
        "quarter of it (and 16 MiB).",
        least=MIN_SEGMENT_SIZE,
    )
    segment_age: float = time(
        600.0,
        _DISK,
        "A segment ends at that age, full or not; the sender does not wait for it. It bounds how long delivered bytes "
        "stay on disk.",
        least=0.1,
    )
    total_size: int = size(
        GiB,
        _DISK,
        "The size of all segments of a lane, at which `on_full` applies. At least four times `segment_size`.",
        least=MIN_SEGMENTS * MIN_SEGMENT_SIZE,
    )
    max_segments: int = count(100_000, _DISK, "The number of segments at which `on_full` applies.", least=MIN_SEGMENTS)
    min_free: int = size(64 * MiB, _DISK, "Free space on the device, below which `on_full` applies.")
    on_full: OnFull = choice(
        "prune",
        _DISK,
        "When the buffer or the device is full: remove the oldest segments and count them (`prune`), let `write()` "
        "wait (`block`), or raise BufferFull (`reject`).",
        get_args(OnFull),
    )
    block_timeout: float | None = time(
        None, _DISK, "How long `write()` waits where it waits, before it raises; none: without limit."
    )
    retain_delivered: float = time(0.0, _DISK, "How long segments stay on disk after everything in them is delivered.")
    expire_after: float | None = time(
        None, _DISK, "The age, counted from `write()`, at which an undelivered message expires; none: never.", least=0.1
    )
    dead_total_size: int = size(
        256 * MiB,
        _DISK,
        "The size of a lane's dead letters; full ones block the lane.",
        least=MIN_SEGMENTS * MIN_SEGMENT_SIZE,
    )
    dir_mode: int = file_mode(
        0o700, _DISK, "Permissions of the directories that the buffer makes; segments are always 0600."
    )

    fsync: Fsync = choice(
        "interval",
        _SAFETY,
        "When data is forced to the device: before `write()` returns (`always`, slow), in the background (`interval`), "
        "or when the system likes (`never`). It matters for power loss only, not for a killed process.",
        get_args(Fsync),
    )
    fsync_interval: float = time(1.0, _SAFETY, "The time between two syncs with `fsync=interval`.", least=0.01)
    linger: float = time(
        0.0,
        _SAFETY,
        "How long single messages may be gathered in memory before they are appended to disk together; a killed "
        "process loses at most that much.",
    )

    batch_messages: int = count(10_000, _SENDING, "Messages in one call of the provider, at most.", most=100_000)
    batch_bytes: int = size(
        MiB,
        _SENDING,
        "Bytes in one call of the provider, at most; one larger message goes alone.",
        least=KiB,
        most=64 * MiB,
    )
    retry_wait: float = time(
        0.1, _SENDING, "The first wait after a failure; it doubles with each further one, with jitter.", least=0.001
    )
    retry_wait_max: float = time(30.0, _SENDING, "The longest wait between two attempts.", least=0.001)
    max_rate: float | None = rate(None, _SENDING, "The rate towards the provider, at most; none: without limit.")
    catch_up: CatchUp = choice(
        "ramp",
        _SENDING,
        "After an outage, begin at about twice the recent intake and double every few seconds (`ramp`), or send as "
        "fast as it goes (`full`).",
        get_args(CatchUp),
    )
    max_rejections: int = count(
        100, _SENDING, "So many rejected messages in a row are taken as a failure of the provider."
    )

    share: bool = flag(
        True,
        _SHARING,
        "Where another process holds the lane, take a free one or make one; false: raise BufferLocked. Order is "
        "promised within a lane.",
    )
    max_lanes: int = count(64, _SHARING, "Lanes in the directory, at most.", most=10_000)
    adopt_after: float = time(
        10.0,
        _SHARING,
        "A lane whose process is gone, and that nobody takes on for so long, is sent by another process that has the "
        "buffer open.",
        least=0.1,
    )
    lock_timeout: float = time(1.0, _SHARING, "How long opening waits for a lane that another process holds.")

    close_timeout: float = time(
        5.0, _OPENING, "How long leaving the `with` block tries to deliver; the rest stays on disk."
    )
    status_interval: float = time(1.0, _OPENING, "The time between two updates of the status files.", least=0.1)
    shrink: bool = flag(False, _OPENING, "Allow limits below what is on disk at opening, which prunes it.")
    rebind: bool = flag(
        False, _OPENING, "Send a backlog that was written for another destination to this one; false: the lane blocks."
    )
    identity: Identity | None = choice(
        None,
        _OPENING,
        "For a copied or restored directory: go on as the original, which must be gone (`adopt`), or as a buffer of "
        "its own (`new-identity`); none: the lanes block.",
        get_args(Identity),
    )
    on_newer: OnNewer = choice(
        "refuse",
        _OPENING,
        "A directory that a newer release wrote: raise NewerFormat (`refuse`), or leave it and write to a fresh lane "
        "(`fresh-lane`), which breaks the order.",
        get_args(OnNewer),
    )
    force_filesystem: bool = flag(
        False, _OPENING, "Use a file system that is not known to keep what is written (NFS, CIFS), at your own risk."
    )

    #: What the source of an option calls it, where that is not its name.
    _labels: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            object.__setattr__(self, name, option.parse(getattr(self, name), name))
        self._check_together()

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], *, source: str = KEYWORDS) -> Config:
        """Options by name, as numbers in base units or texts; ``source`` is named in errors.

        :raises ConfigurationError: an unknown name (the nearest one is given), a wrong value, or
            two that do not go together.
        """
        return cls._merged(config_sources.from_mapping(mapping, OPTIONS, source=source))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], section: str | None = None) -> Config:
        """A TOML file: the table ``section``, else ``[tool.mbframework]`` or ``[mbframework]``, else the top level.

        :raises ConfigurationError: as for :meth:`from_mapping`, or the file cannot be read.
        """
        return cls._merged(config_sources.from_toml(path, OPTIONS, section=section))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Config:
        """The configuration file of the Go library ``messagebuffer``; its keys: docs/migration.md.

        ``file_max_time`` (seconds, or "10m") → ``segment_age``; ``file_max_size`` and ``total_size`` (MB) →
        ``segment_size`` and ``total_size``; ``buffer_dir`` → ``directory``; ``prune_frequency`` is not needed.
        The error mode never stood in the file: add it with ``.replace(mode=…)``.

        :raises ConfigurationError: as for :meth:`from_mapping`, or the file cannot be read.
        """
        return cls._merged(config_sources.from_json(path))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, prefix: str = "MBFRAMEWORK_") -> Config:
        """Environment variables such as ``MBFRAMEWORK_SEGMENT_SIZE``, over the file that ``MBFRAMEWORK_CONFIG`` names.

        ``environ`` is ``os.environ`` where it is not given.

        :raises ConfigurationError: as for :meth:`from_mapping`, or the file cannot be read.
        """
        return cls.layered(environ=os.environ if environ is None else environ, prefix=prefix)

    @classmethod
    def layered(
        cls,
        *,
        file: str | os.PathLike[str] | None = None,
        section: str | None = None,
        environ: Mapping[str, str] | None = None,
        prefix: str = "MBFRAMEWORK_",
        labels: Mapping[str, str] | None = None,
        **keywords: object,
    ) -> Config:
        """Keyword arguments over environment over file.

        ``file`` (TOML, or the original's with the suffix ``.json``) goes before the one that
        ``MBFRAMEWORK_CONFIG`` names. Where ``environ`` is None the environment is not read. ``labels`` says what
        errors call the keyword arguments, where a user knows them by another name.

        :raises ConfigurationError: as for :meth:`from_mapping`; it names the source that has the last word.
        """
        layers = []
        if file is None and environ is not None:
            file = config_sources.file_named_in(environ, prefix)
        if file is not None:
            layers.append(config_sources.from_file(file, OPTIONS, section=section))
        if environ is not None:
            layers.append(config_sources.from_env(environ, OPTIONS, prefix=prefix))
        layers.append(config_sources.from_mapping(keywords, OPTIONS, names=labels))
        return cls._merged(*layers)

    def replace(self, **changes: object) -> Config:
        """The same with some options changed; values as for :meth:`from_mapping`.

        :raises ConfigurationError: as for :meth:`from_mapping`.
        """
        current: dict[str, object] = {name: getattr(self, name) for name in OPTIONS}
        return self._merged(Layer(current, names=self._labels), config_sources.from_mapping(changes, OPTIONS))

    @property
    def status_file_mode(self) -> int:
        """Of what a process narrates: its own to write, the group's to read where it may read the directory."""
        return 0o600 | (self.dir_mode & 0o040)

    def anchored(self) -> Config:
        """The same with ``directory`` as an absolute path, which a change of the working directory does not move."""
        anchored = copy.copy(self)
        if self.directory is not None:
            object.__setattr__(anchored, "directory", os.path.abspath(self.directory))
        return anchored

    def label(self, option: str) -> str:
        """What the source of an option calls it, such as ``outbox.toml: fsync``: errors begin with that."""
        return self._labels.get(option, option)

    @contextmanager
    def naming(self, option: str) -> Iterator[None]:
        """Inside, an error about what ``option`` names says where that stands; one about another option where that
        does."""
        try:
            yield
        except (ConfigurationError, DirectoryError, PluginError) as error:
            own = getattr(error, "option", "")
            self._name(error, own if own in OPTIONS and not isinstance(error, PluginError) else option)
            raise

    @contextmanager
    def naming_provider(self) -> Iterator[None]:
        """Inside, an error about the provider names the source of ``provider`` or ``provider_options``."""
        try:
            yield
        except (ConfigurationError, PluginError) as error:
            inner = getattr(error, "option", "").partition(".")[0]
            beside = inner == "provider_options" or inner in self.provider_options
            option = "provider_options" if beside else "provider"
            # A keyword argument needs no name: the error tells the provider's.
            if option in self._labels:
                self._name(error, option)
            raise

    def _name(self, error: Exception, option: str) -> None:
        """Let the error begin with the source of an option, in place of its name."""
        error.args = (f"{self.label(option)}: {str(error).removeprefix(f'{option}: ')}", *error.args[1:])

    @classmethod
    def _merged(cls, *layers: Layer) -> Config:
        """Later layers go over earlier ones."""
        values: dict[str, Any] = {}
        labels: dict[str, str] = {}
        for layer in layers:
            values |= layer.values
            labels |= {name: layer.label(name) for name in layer.values}
        try:
            if "segment_size" not in values:
                values["segment_size"] = _default_segment_size(values.get("total_size", GiB))
            config = cls(**values)
        except ConfigurationError as error:
            # Each message begins with the option's name, and may have those of others in parentheses; say them as
            # the sources say them.
            text = re.sub(r"\((\w+)\)", lambda match: f"({labels.get(match[1], match[1])})", str(error))
            rest = text.removeprefix(error.option)
            raise ConfigurationError(labels.get(error.option, error.option) + rest, option=error.option) from None
        object.__setattr__(config, "_labels", {name: label for name, label in labels.items() if label != name})
        return config

    def _check_together(self) -> None:
        least = MIN_SEGMENTS * self.segment_size
        if self.total_size < least:
            raise ConfigurationError(
                f"total_size: {_size(self.total_size)} is less than {MIN_SEGMENTS} segments of "
                f"{_size(self.segment_size)} (segment_size); expected {_size(least)} or more, or segment_size "
                f"of at most {_size(self.total_size // MIN_SEGMENTS)}",
                option="total_size",
            )
        if self.total_size > self.max_segments * self.segment_size:
            raise ConfigurationError(
                f"total_size: {_size(self.total_size)} is more than {self.max_segments:,} segments (max_segments) of "
                f"{_size(self.segment_size)} (segment_size) hold; make one of the two larger",
                option="total_size",
            )
        if self.retry_wait > self.retry_wait_max:
            raise ConfigurationError(
                f"retry_wait: {_time(self.retry_wait)} is longer than {_time(self.retry_wait_max)} (retry_wait_max); "
                "expected the same or less",
                option="retry_wait",
            )
        if self.fsync == "always" and self.linger:
            raise ConfigurationError(
                f"linger: {_time(self.linger)} does not go with 'always' (fsync), where write() returns with the "
                "message on the device; expected linger=0, or fsync='interval'",
                option="linger",
            )


def _default_segment_size(total_size: Any) -> int:
    """The usual size, or what a smaller ``total_size`` leaves."""
    parsed: Any = OPTIONS["total_size"].parse(total_size, "total_size")
    quarter: int = parsed // MIN_SEGMENTS
    return max(MIN_SEGMENT_SIZE, min(32 * MiB, quarter))


def _size(value: int) -> str:
    return format_size(value, exact=True)


def _time(value: float) -> str:
    return format_time(value, exact=True)


#: Every option by name, in the order of the reference.
OPTIONS: Mapping[str, Option] = {each.name: option_of(each) for each in fields(Config) if each.init}
#: The defaults by name, in base units.
DEFAULTS: Mapping[str, object] = {name: getattr(Config(), name) for name in OPTIONS}
