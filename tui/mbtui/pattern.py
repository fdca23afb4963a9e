"""A filter as people type it: a regular expression, case ignored, turned round by a ``!`` in front."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """``active``: rows that it does not find are hidden; otherwise only n and N look for it."""

    expression: re.Pattern[str] | None = None
    inverted: bool = False
    active: bool = True

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The filter that was typed.

        :raises ValueError: it is not a regular expression; the text says what is wrong, and where.
        """
        inverted = text.startswith("!")
        expression = text[1:] if inverted else text
        if not expression:
            return cls()
        try:
            return cls(re.compile(expression, re.IGNORECASE), inverted)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        except (OverflowError, RecursionError):
            raise ValueError("not a regular expression: too large") from None

    def finds(self, text: str) -> bool:
        """Whether this is one of the rows looked for."""
        return self.expression is None or (self.expression.search(text) is None) == self.inverted

    def shows(self, text: str) -> bool:
        """Whether this row is shown."""
        return not self.active or self.finds(text)

    @property
    def filters(self) -> bool:
        """Whether rows are hidden."""
        return self.active and self.expression is not None

    def __str__(self) -> str:
        return "" if self.expression is None else ("!" if self.inverted else "") + self.expression.pattern
