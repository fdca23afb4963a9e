"""The options that commands share, and the configuration that they add up to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mbframework.config import Config

directory_argument = click.argument("directory", metavar="DIR", type=click.Path())
provider_option = click.option(
    "--provider", metavar="URL", help="The provider; a password is safer in MBFRAMEWORK_PROVIDER, or in --config."
)
config_option = click.option(
    "--config", "file", metavar="FILE", type=click.Path(), help="Options of the buffer, its provider included, as TOML."
)


def configuration(directory: str, file: str | None, **given: str | None) -> Config:
    """What the command line says, over MBFRAMEWORK_… variables, over the file.

    :raises ConfigurationError: a wrong value; it names where that stands.
    """
    from mbframework.config import Config

    options = {name: value for name, value in given.items() if value is not None}
    return Config.layered(file=file, environ=os.environ, directory=directory, **options)
