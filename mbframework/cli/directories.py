"""The directories that a command looks at, where it takes several."""

from __future__ import annotations

import click

from mbframework.errors import ConfigurationError


def _each_once(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    # The empty path would be the working directory: most often a variable of a script that was not set.
    if "" in value:
        raise ConfigurationError(f"{parameter.get_error_hint(ctx)} is empty; expected a path")
    return tuple(dict.fromkeys(value))


directories_argument = click.argument(
    "directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(readable=False), callback=_each_once
)
