"""What frames in a row hold, column by column: the shape that both ways of reading many of them at once share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Stretch:
    """The messages, one list a field; see :class:`~mbframework.spool.frame.Columns`.

    ``size``: bytes of the frames without padding. ``offset``: of the frame behind them.
    """

    offset: int
    size: int = 0
    topics: list[str] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    header_blocks: list[bytes | None] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
