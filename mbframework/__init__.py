"""A durable outbox between Python programs and their message brokers.

::

    from mbframework import MessageBuffer

    with MessageBuffer("outbox", "kafka://127.0.0.1:9092") as buffer:
        buffer.write("orders", b"value", key=b"42")
"""

from importlib import import_module

# Under other names: mbframework.logging is a module of ours.
from logging import NullHandler as _NullHandler
from logging import getLogger as _getLogger
from typing import TYPE_CHECKING

from mbframework.errors import (
    BrokenPlugin,
    BufferClosed,
    BufferFull,
    BufferLocked,
    CloseIncomplete,
    ConfigurationError,
    DamagedError,
    DirectoryError,
    DiskFailed,
    DurabilityError,
    FlushTimeout,
    MessageBufferError,
    MessageError,
    MessageTooLarge,
    MissingRequirement,
    ModeError,
    NewerFormat,
    NotABuffer,
    NotAccepted,
    PluginApiMismatch,
    PluginError,
    ProviderError,
    ProviderUnavailable,
    ProviderUnusable,
    SenderStuck,
    SendFailed,
    Undelivered,
    UnknownProvider,
    UnsafeDirectory,
    UnsupportedFormat,
)

if TYPE_CHECKING:
    from mbframework.aio import AsyncMessageBuffer
    from mbframework.aio_routed import AsyncRoutedBuffer
    from mbframework.buffer import MessageBuffer, install_sigterm
    from mbframework.config import Config
    from mbframework.message import Batch, Message, Position
    from mbframework.plugins import ProviderType, hookimpl, option
    from mbframework.provider import Context, Health, Provider
    from mbframework.routed import RoutedBuffer
    from mbframework.sidecar import Sidecar
    from mbframework.status import BufferStatus, LaneStatus
    from mbframework.status import read as read_status

__version__ = "0.1.0"

__all__ = [
    "AsyncMessageBuffer",
    "AsyncRoutedBuffer",
    "Batch",
    "BrokenPlugin",
    "BufferClosed",
    "BufferFull",
    "BufferLocked",
    "BufferStatus",
    "CloseIncomplete",
    "Config",
    "ConfigurationError",
    "Context",
    "DamagedError",
    "DirectoryError",
    "DiskFailed",
    "DurabilityError",
    "FlushTimeout",
    "Health",
    "LaneStatus",
    "Message",
    "MessageBuffer",
    "MessageBufferError",
    "MessageError",
    "MessageTooLarge",
    "MissingRequirement",
    "ModeError",
    "NewerFormat",
    "NotABuffer",
    "NotAccepted",
    "PluginApiMismatch",
    "PluginError",
    "Position",
    "Provider",
    "ProviderError",
    "ProviderType",
    "ProviderUnavailable",
    "ProviderUnusable",
    "RoutedBuffer",
    "SendFailed",
    "SenderStuck",
    "Sidecar",
    "Undelivered",
    "UnknownProvider",
    "UnsafeDirectory",
    "UnsupportedFormat",
    "__version__",
    "hookimpl",
    "install_sigterm",
    "option",
    "read_status",
]

#: Where the names are that are imported with their first use: `mb status` and a program that only reads a status need
#: few of them.
_LATE = {
    "AsyncMessageBuffer": "aio.AsyncMessageBuffer",
    "AsyncRoutedBuffer": "aio_routed.AsyncRoutedBuffer",
    "Batch": "message.Batch",
    "BufferStatus": "status.BufferStatus",
    "Config": "config.Config",
    "Context": "provider.Context",
    "Health": "provider.Health",
    "LaneStatus": "status.LaneStatus",
    "Message": "message.Message",
    "MessageBuffer": "buffer.MessageBuffer",
    "Position": "message.Position",
    "Provider": "provider.Provider",
    "ProviderType": "plugins.ProviderType",
    "RoutedBuffer": "routed.RoutedBuffer",
    "Sidecar": "sidecar.Sidecar",
    "hookimpl": "plugins.hookimpl",
    "install_sigterm": "buffer.install_sigterm",
    "option": "plugins.option",
    "read_status": "status.read",
}


def __getattr__(name: str) -> object:
    """A public name, at its first use."""
    home, _, attribute = _LATE.get(name, "").rpartition(".")
    if not home:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), attribute)
    globals()[name] = value
    return value


# A library says nothing unless the program asks it to.
_getLogger("mbframework").addHandler(_NullHandler())
