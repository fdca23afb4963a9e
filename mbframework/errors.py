"""Every error of mbframework, in one tree.

::

    MessageBufferError
    ├── ConfigurationError          a wrong option, mode, size, URL or name; nothing was created
    ├── DirectoryError              the buffer's directory cannot be used as it is
    │   ├── NotABuffer              the directory holds something else
    │   ├── UnsafeDirectory         others may write into it
    │   ├── NewerFormat             written by a newer release
    │   └── BufferLocked            another process holds it (``share=False`` or ``max_lanes`` reached)
    ├── MessageError                this one message was refused; nothing was written
    │   └── MessageTooLarge
    ├── NotAccepted                 the message was not accepted now; writing it again later is right
    │   ├── BufferFull
    │   ├── BufferClosed
    │   ├── ProviderUnavailable     mode ``raise``: the provider is down
    │   └── DiskFailed              the device is broken or read-only
    ├── DurabilityError             accepted, but not known to be on the device: do not write it again
    ├── FlushTimeout                also a ``TimeoutError``
    ├── CloseIncomplete             close() could not deliver everything
    │   ├── Undelivered             modes ``block`` and ``raise``: carries the messages
    │   └── SenderStuck             the provider's send() has not returned
    ├── ModeError                   the mode cannot change now
    ├── DamagedError                bytes on disk are not what was written
    │   └── UnsupportedFormat       intact, but written by a newer release
    └── ProviderError               a provider or its plugin
        ├── PluginError             a plugin cannot be used; ``.plugin`` names it
        │   ├── UnknownProvider
        │   ├── MissingRequirement  carries the pip command that installs it
        │   ├── PluginApiMismatch
        │   └── BrokenPlugin
        ├── ProviderUnusable        open(): retrying without a change is pointless; the lane blocks
        └── SendFailed              what a provider raises when a batch, or part of it, failed

Each error names the thing, what was expected, and the next step; data that a
caller may want is on attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mbframework.message import Message


class MessageBufferError(Exception):
    """The root of every error that mbframework raises on purpose."""


class ConfigurationError(MessageBufferError, ValueError):
    """A wrong option, mode, size, URL or name. Nothing was created.

    ``option`` is the option's name, or "" where the mistake has none.
    """

    def __init__(self, message: str, *, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class DirectoryError(MessageBufferError):
    """The buffer's directory cannot be used as it is; ``path`` names it."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class NotABuffer(DirectoryError):
    """The directory exists and holds something that is not a buffer."""


class UnsafeDirectory(DirectoryError):
    """The directory or a file in it belongs to, or may be written by, somebody else."""


class NewerFormat(DirectoryError):
    """The directory was written by a newer release; nothing in it was touched."""


class BufferLocked(DirectoryError):
    """Another process holds the lane; ``holder`` is what its lock file says of it."""

    def __init__(self, message: str, *, path: str = "", holder: str = "") -> None:
        super().__init__(message, path=path)
        self.holder = holder


class MessageError(MessageBufferError, ValueError):
    """One message was refused before acceptance; the buffer is unchanged."""


class MessageTooLarge(MessageError):
    """The message has ``size`` bytes; at most ``limit`` are taken."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class NotAccepted(MessageBufferError):
    """The message was not accepted; writing it again later is right.

    ``accepted`` is not empty where a ``write_many()`` came to an end half-way: the range of sequences of those
    of its messages that were accepted, its first ones.
    """

    accepted: range = range(0)


class BufferFull(NotAccepted):
    """The buffer's limit, or the device, is full and the policy is to refuse."""


class BufferClosed(NotAccepted):
    """The buffer is closed, or belongs to the parent of this forked process."""


class ProviderUnavailable(NotAccepted):
    """Mode ``raise``: the provider is down; ``__cause__`` is its error."""


class DiskFailed(NotAccepted):
    """The device under the buffer is broken or read-only."""


class DurabilityError(MessageBufferError):
    """The message with ``sequence`` is accepted but not known to be on the device.

    Do not write it again: it will be delivered unless the machine stops first.
    """

    def __init__(self, message: str, *, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence


class FlushTimeout(MessageBufferError, TimeoutError):
    """flush() ran out of time; ``remaining`` messages were not yet delivered."""

    def __init__(self, message: str, *, remaining: int) -> None:
        super().__init__(message)
        self.remaining = remaining


class CloseIncomplete(MessageBufferError):
    """close() ended before everything was delivered."""


class Undelivered(CloseIncomplete):
    """Modes ``block`` and ``raise`` keep nothing on disk: here are the ``messages``."""

    def __init__(self, message: str, *, messages: Sequence[Message]) -> None:
        super().__init__(message)
        self.messages = messages


class SenderStuck(CloseIncomplete):
    """The provider's send() has not returned; what it holds is kept on disk where the mode allows."""


class ModeError(MessageBufferError):
    """The mode cannot change now, for the reason given."""


class DamagedError(MessageBufferError):
    """Bytes on disk are not what was written; ``path`` and ``offset`` (bytes) say where."""

    def __init__(self, message: str, *, path: str = "", offset: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset


class UnsupportedFormat(DamagedError):
    """Intact, but of a format or with a flag that this release does not know."""


class ProviderError(MessageBufferError):
    """A provider, or the plugin that brings it, failed; ``provider`` names it."""

    def __init__(self, message: str, *, provider: str = "") -> None:
        super().__init__(message)
        self.provider = provider


class PluginError(ProviderError):
    """A plugin cannot be used; ``plugin`` names it, ``__cause__`` is why."""

    def __init__(self, message: str, *, plugin: str) -> None:
        super().__init__(message, provider=plugin)
        self.plugin = plugin


class UnknownProvider(PluginError, ConfigurationError):
    """No installed distribution brings a provider of that name."""

    option = "provider"


class MissingRequirement(PluginError):
    """A declared requirement is not installed; ``command`` installs it."""

    def __init__(self, message: str, *, plugin: str, command: str) -> None:
        super().__init__(message, plugin=plugin)
        self.command = command


class PluginApiMismatch(PluginError):
    """The plugin was written for another version of the provider API."""


class BrokenPlugin(PluginError):
    """The plugin cannot be imported or registered: its own fault."""


class ProviderUnusable(ProviderError):
    """Raised by a provider where retrying without a person's help is pointless.

    Examples: wrong credentials, a topic that the account may not write. The lane
    shows BLOCKED with this text, keeps everything, and tries again at
    ``retry_wait_max`` intervals, since a person may mend it on the far side.
    """


class SendFailed(ProviderError):
    """A batch, or part of it, was not delivered.

    :param undelivered: indices into the batch that were not delivered; they must be a
        suffix within each ordering domain. None: everything that is not in ``rejected``.
    :param rejected: index → reason, for messages that will never be taken as they are.
    :param uncertain: True where undelivered messages may have arrived all the same.
    :param retry_after: the wait in seconds that the broker asks for.
    """

    def __init__(
        self,
        message: str,
        *,
        undelivered: Sequence[int] | None = None,
        rejected: Mapping[int, str] | None = None,
        uncertain: bool = False,
        retry_after: float | None = None,
        provider: str = "",
    ) -> None:
        super().__init__(message, provider=provider)
        self.undelivered = undelivered
        self.rejected: Mapping[int, str] = rejected or {}
        self.uncertain = uncertain
        self.retry_after = retry_after
