"""Options of a benchmark: the fields of its dataclass ``Settings``, from which the command line is made."""

from __future__ import annotations

import dataclasses
from typing import Any


def setting(default: Any, meaning: str) -> Any:
    """A field with what the command line says of it. Its default is an int, a float, a str or a bool."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})
