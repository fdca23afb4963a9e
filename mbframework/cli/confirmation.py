"""What cannot be undone is asked for twice: by ``--yes``, or by words typed on a terminal."""

from __future__ import annotations

import sys

import click

from mbframework.cli.terminal import printable
from mbframework.errors import ConfigurationError

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def confirm(what: str, expected: str, *, yes: bool) -> None:
    """Return when the person at the terminal has typed ``expected`` (a number: with or without its commas).

    :raises ConfigurationError: something else was typed, or there is no terminal to type at.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError(f"{what}: give --yes, since there is no terminal to confirm it at; nothing was done")
    typed = click.prompt(
        f"{printable(what)}: type {printable(expected)} to go on", default="", show_default=False, err=True
    )
    if typed.strip().replace(",", "") != expected.replace(",", ""):
        raise ConfigurationError("not confirmed; nothing was done")
