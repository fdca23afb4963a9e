"""The hooks that a plugin may implement: one for providers, the rest for observers.

An observer implements any of its hooks and names any of their arguments. Hooks
are called on a thread of their own, after the event, and may be dropped under
load (mbframework.observers); there is none per message. In all of them
``directory`` is the buffer's, ``lane`` the lane's name, ``messages`` a count,
``size`` bytes on disk, and sequences are inclusive; sequences that are not
known are -1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mbframework.plugins.registry import ProviderType

hookspec = pluggy.HookspecMarker("mbframework")
#: Marks a plugin's implementation of a hook.
hookimpl = pluggy.HookimplMarker("mbframework")


@hookspec(firstresult=True)
def mbframework_provider() -> ProviderType:  # type: ignore[empty-body]
    """Return the provider that this plugin brings."""


@hookspec
def mbframework_segment_sealed(
    directory: str, lane: str, segment: int, first_sequence: int, last_sequence: int, messages: int, size: int
) -> None:
    """Segment number ``segment`` is complete; nothing will be appended to it."""


@hookspec
def mbframework_batch_delivered(
    directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, size: int, seconds: float
) -> None:
    """The provider acknowledged a batch of ``size`` bytes (of messages) after ``seconds``."""


@hookspec
def mbframework_batch_failed(
    directory: str,
    lane: str,
    first_sequence: int,
    last_sequence: int,
    messages: int,
    reason: str,
    uncertain: bool,
    retry_wait: float,
) -> None:
    """``messages`` of a batch were not delivered; they are tried again in ``retry_wait`` seconds.

    ``uncertain``: they may have arrived all the same. ``reason`` is the provider's, secrets masked.
    """


@hookspec
def mbframework_pruned(
    directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, size: int, reason: str
) -> None:
    """The oldest messages were removed to make room."""


@hookspec
def mbframework_expired(
    directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, size: int, reason: str
) -> None:
    """Messages were removed because of their age."""


@hookspec
def mbframework_dead(directory: str, lane: str, sequence: int, topic: str, reason: str) -> None:
    """The provider will never take this message; it is among the dead letters."""


@hookspec
def mbframework_lost(
    directory: str, lane: str, first_sequence: int, last_sequence: int, messages: int, reason: str
) -> None:
    """Accepted messages are gone, or not known to be delivered."""


@hookspec
def mbframework_recovered(
    directory: str, lane: str, messages: int, size: int, segments: int, seconds: float, reason: str
) -> None:
    """A lane with a backlog of ``messages`` was opened again, within ``seconds``; ``reason``: how it had stopped."""


@hookspec
def mbframework_state_changed(directory: str, lane: str, before: str, after: str, reason: str) -> None:
    """The lane went from state ``before`` to ``after``: ``live``, ``buffering``, ``draining``, …"""
