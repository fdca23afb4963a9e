"""The options that commands share, and the configuration that they add up to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mbframework.errors import ConfigurationError

if TYPE_CHECKING:
    from mbframework.config import Config
    from mbframework.plugins.source import ProviderSource


def _not_empty(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    # The empty path would be the working directory: most often a variable of a script that was not set.
    if value == "":
        raise ConfigurationError(f"{parameter.get_error_hint(ctx)} is empty; expected a path")
    return value


directory_argument = click.argument("directory", metavar="DIR", type=click.Path(readable=False), callback=_not_empty)
provider_option = click.option(
    "--provider", metavar="URL", help="The provider; a password is safer in MBFRAMEWORK_PROVIDER, or in --config."
)
config_option = click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(readable=False),
    callback=_not_empty,
    help="Options of the buffer, its provider included, as TOML.",
)


#: What the command line calls an option of the buffer, where that is not its name with two dashes.
_CALLED = {"directory": "DIR", "close_timeout": "--timeout"}


def configuration(directory: str, file: str | None, **given: str | None) -> Config:
    """What the command line says, over MBFRAMEWORK_… variables, over the file.

    :raises ConfigurationError: a wrong value; it names where that stands.
    """
    from mbframework.config import Config

    options = {name: value for name, value in given.items() if value is not None}
    labels = {name: f"--{name.replace('_', '-')}" for name in options} | _CALLED
    return Config.layered(file=file, environ=os.environ, labels=labels, directory=directory, **options)


def provider_of(config: Config) -> ProviderSource | None:
    """The provider of a configuration, checked and not connected; None where it names none.

    :raises ConfigurationError: its URL or an option of it is wrong; the error names where that stands.
    :raises PluginError: it cannot be used; likewise.
    """
    from mbframework.plugins.source import resolve_url

    if config.provider is None:
        return None
    with config.naming_provider():
        return resolve_url(config.provider, config.provider_options)
