"""Themes in the colours of Okabe and Ito, which people with any kind of colour vision can tell apart."""

from __future__ import annotations

from typing import Any

from textual.app import App
from textual.filter import NoColor
from textual.theme import Theme

OKABE_ITO_DARK = Theme(
    name="okabe-ito-dark",
    primary="#56B4E9",
    secondary="#0072B2",
    accent="#CC79A7",
    success="#00B88A",
    warning="#E69F00",
    error="#F0743A",
    foreground="#E8E8E8",
    background="#101418",
    surface="#171C22",
    panel="#222932",
    dark=True,
    variables={
        "text-primary": "#7CC6F2",
        "text-success": "#2BD4A4",
        "text-warning": "#F5BC41",
        "text-error": "#FF8F5C",
        "border": "#4A5866",
        "text-muted": "#9AA7B4",
    },
)
OKABE_ITO_LIGHT = Theme(
    name="okabe-ito-light",
    primary="#0072B2",
    secondary="#56B4E9",
    accent="#A8508A",
    success="#007A5A",
    warning="#8F5F00",
    error="#B84300",
    foreground="#1B1F24",
    background="#FAFAF7",
    surface="#F0F0EB",
    panel="#E4E4DE",
    dark=False,
    variables={
        "text-primary": "#005A8E",
        "text-success": "#006B4F",
        "text-warning": "#7A5000",
        "text-error": "#A83C00",
        "border": "#9AA0A6",
        "text-muted": "#5A6068",
    },
)
OWN = (OKABE_ITO_DARK, OKABE_ITO_LIGHT)
#: What ``t`` goes through; the command palette has all.
CYCLE = ("okabe-ito-dark", "okabe-ito-light", "textual-dark", "textual-light", "nord", "gruvbox", "solarized-light")


def after(theme: str) -> str:
    """The next one in the cycle."""
    return CYCLE[(CYCLE.index(theme) + 1) % len(CYCLE)] if theme in CYCLE else CYCLE[0]


def without_colours(app: App[Any]) -> None:
    """Let an app that is not running yet send no colour at all; the library by itself would send greys."""
    app.no_color = True
    app._filters.append(NoColor())  # noqa: SLF001  (there is no other way to them)
