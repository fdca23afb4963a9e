"""A filter as people type it: a regular expression, case ignored, turned round by a ``!`` in front.

One that could take hours is refused; how much of a long text is searched depends on its repetitions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mbtui.repeats import reach_of


@dataclass(frozen=True, slots=True)
class Pattern:
    """``active``: rows that it does not find are hidden; otherwise only n and N look for it. ``reach``: characters of a
    text that are searched, None: all."""

    expression: re.Pattern[str] | None = None
    inverted: bool = False
    active: bool = True
    reach: int | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The filter that was typed.

        :raises ValueError: it is not a regular expression, or would take too long; the text says what is wrong.
        """
        inverted = text.startswith("!")
        expression = text[1:] if inverted else text
        if not expression:
            return cls()
        try:
            compiled = re.compile(expression, re.IGNORECASE)
            return cls(compiled, inverted, reach=reach_of(expression, compiled.flags))
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        except (OverflowError, RecursionError):
            raise ValueError("not a regular expression: too large") from None

    def finds(self, text: str) -> bool:
        """Whether this is one of the rows looked for."""
        return self.expression is None or (self.expression.search(text[: self.reach]) is None) == self.inverted

    def shows(self, text: str) -> bool:
        """Whether this row is shown."""
        return not self.active or self.finds(text)

    @property
    def filters(self) -> bool:
        """Whether rows are hidden."""
        return self.active and self.expression is not None

    def __str__(self) -> str:
        return "" if self.expression is None else ("!" if self.inverted else "") + self.expression.pattern
