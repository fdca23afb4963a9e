"""Thresholds as ``mb check`` takes them: ``WARNING,CRITICAL``, either of which may be missing, or ``none``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import click

from mbframework.errors import ConfigurationError
from mbframework.units import parse_number, parse_size, parse_time

_PERCENT = re.compile(r"(\d{1,10}(?:\.\d{1,10})?)\s*%", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bound:
    """A number in base units, or percent of a limit."""

    number: float
    percent: bool = False

    def within(self, limit: float | None) -> float | None:
        """The number that is meant; None: the limit is not known."""
        if not self.percent:
            return self.number
        return None if limit is None else limit * self.number / 100


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From these on it is a warning, or critical; None: never."""

    warning: Bound | None = None
    critical: Bound | None = None

    def within(self, limit: float | None = None) -> tuple[float | None, float | None]:
        """Both as numbers."""
        return tuple(None if bound is None else bound.within(limit) for bound in (self.warning, self.critical))  # type: ignore[return-value]  # a pair


def _time(text: str, name: str) -> Bound:
    return Bound(parse_time(text, name=name))


def _count(text: str, name: str) -> Bound:
    return Bound(parse_number(text, name=name, expected="expected a number of messages"))


def _size(text: str, name: str) -> Bound:
    match = _PERCENT.fullmatch(text.strip())
    return Bound(float(match[1]), percent=True) if match else Bound(parse_size(text, name=name))


Callback = Callable[[click.Context, click.Parameter, str], Thresholds]


def _callback(parse: Callable[[str, str], Bound], example: str) -> Callback:
    def convert(ctx: click.Context, parameter: click.Parameter, value: str) -> Thresholds:
        if value.strip().lower() == "none":
            return Thresholds()
        parts = value.split(",")
        if len(parts) != 2:
            raise click.BadParameter(
                f"{value!r}: expected WARNING,CRITICAL such as {example!r}, or 'none'", ctx, parameter
            )
        label = parameter.opts[0]
        try:
            warning, critical = (parse(part, label) if part.strip() else None for part in parts)
        except ConfigurationError as error:
            # click names the option.
            raise click.BadParameter(str(error).removeprefix(f"{label}: "), ctx, parameter) from None
        if warning and critical and warning.percent == critical.percent and warning.number > critical.number:
            raise click.BadParameter(
                f"{value!r}: a warning begins at the first, which must not be the larger one", ctx, parameter
            )
        return Thresholds(warning, critical)

    return convert


#: Callbacks of options.
times = _callback(_time, "5m,1h")
counts = _callback(_count, "1,1000")
sizes = _callback(_size, "50%,90%")
