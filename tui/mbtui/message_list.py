"""A list of any length of which only the pages in sight are fetched.

Promises
--------
- Nothing is read here: ``fetch`` does, as a coroutine, a page at a time; a row that is on its way says so, and no key
  waits for it. Pages that were scrolled past meanwhile are not fetched any more.
- Memory: :data:`PAGES` pages of :data:`PAGE` rows, whatever the length.

On the event loop only. Rows count from 0.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Generic, TypeVar

from textual.message import Message

from mbframework.errors import MessageBufferError
from mbtui.ink import Line
from mbtui.rows_view import RowsView

Item = TypeVar("Item")

#: Rows fetched at a time, and how many such pages are kept.
PAGE: Final = 64
PAGES: Final = 8


class MessageList(RowsView, Generic[Item]):
    """See the module.

    :param fetch: the rows from a number on and below another, as far as they are there: number → item. It may raise
        OSError and MessageBufferError: then :class:`Failed` is posted, and nothing is fetched until :meth:`reload`.
    :param draw: one row: its number, the item or None while it is on its way, and the cells there are for it.
    :param heading: the line above the rows, in so many cells.
    """

    class Arrived(Message):
        """The item under the cursor is there."""

    class Failed(Message):
        """A page could not be fetched; ``reason`` is for people."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    def __init__(
        self,
        fetch: Callable[[int, int], Awaitable[Mapping[int, Item]]],
        draw: Callable[[int, Item | None, int], Line],
        heading: Callable[[int], Line],
        *,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._fetch, self._draw, self._heading = fetch, draw, heading
        self._pages: OrderedDict[int, Mapping[int, Item]] = OrderedDict()
        #: Pages that were missing when they were drawn, the latest last.
        self._wanted: dict[int, None] = {}
        self._fetching = False
        #: Whether a page could not be fetched since the last :meth:`reload`.
        self.stopped = False
        #: Rises when what is being fetched is no longer wanted.
        self._generation = 0

    @property
    def item(self) -> Item | None:
        """What is under the cursor; None where nothing is, or while it is on its way."""
        return self._pages.get(self.cursor // PAGE, {}).get(self.cursor)

    def set_total(self, total: int) -> None:
        """There are so many rows now. A page that has become longer is fetched again."""
        if total == self.total:
            return
        if total > self.total:
            self._pages.pop(self.total // PAGE, None)
        super().set_total(total)
        self._generation += 1
        self.refresh()

    def reload(self) -> None:
        """Fetch anew what is in sight."""
        self._pages.clear()
        self._generation += 1
        self.stopped = False
        self.refresh()

    def jump(self, row: int) -> None:
        """Put the cursor on a row; where that is out of sight, it comes into the middle."""
        if row not in self.window:
            self.scroll_to(y=max(0, row - self.visible_rows // 2), animate=False, force=True)
        self.move_to(row)

    def head(self) -> Line:
        return self._heading(self._room)

    def row(self, at: int) -> Line:
        rows = self._pages.get(at // PAGE)
        if rows is None:
            self._want(at // PAGE)
        return self._draw(at, None if rows is None else rows.get(at), self._room)

    @property
    def _room(self) -> int:
        """Cells beside the scrollbar."""
        return self.scrollable_content_region.width

    def _want(self, page: int) -> None:
        self._wanted.pop(page, None)
        self._wanted[page] = None
        if not self._fetching and not self.stopped:
            self._fetching = True
            self.run_worker(self._fetch_wanted(), group="pages")

    async def _fetch_wanted(self) -> None:
        try:
            while self._wanted:
                page, _ = self._wanted.popitem()
                if page in self._pages or not self._in_sight(page):
                    continue
                generation = self._generation
                try:
                    items = await self._fetch(page * PAGE, min(self.total, (page + 1) * PAGE))
                except (OSError, MessageBufferError) as error:
                    self.stopped = True
                    self._wanted.clear()
                    self.post_message(self.Failed(reason(error)))
                    return
                if generation == self._generation:
                    self._keep(page, items)
                else:
                    self._wanted[page] = None
        finally:
            self._fetching = False

    def _in_sight(self, page: int) -> bool:
        window = self.window
        return window.start < (page + 1) * PAGE and page * PAGE < window.stop

    def _keep(self, page: int, items: Mapping[int, Item]) -> None:
        self._pages[page] = items
        while len(self._pages) > PAGES:
            self._pages.popitem(last=False)
        self.refresh()
        if page == self.cursor // PAGE:
            self.post_message(self.Arrived())


def reason(error: OSError | MessageBufferError) -> str:
    """What went wrong, for people."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
