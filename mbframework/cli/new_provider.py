"""``mb new-provider``: a project for a provider of one's own, that passes its own tests, types and lint as it stands.

What the files say is decided by :func:`render`, which only reads the templates in this package.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from keyword import iskeyword
from string import Template
from typing import TYPE_CHECKING

import click

from mbframework.cli.terminal import narrate, plural
from mbframework.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_PACKAGE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
#: Longer ones would not fit into the lines of the templates.
_LONGEST = 30


@click.command("new-provider")
@click.argument("name")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(readable=False))
@click.option("--package", metavar="NAME", help="The import package; by default NAME_provider.")
def new_provider(name: str, directory: str | None, package: str | None) -> None:
    """Make the project of a new provider, whose URLs begin with NAME:, in the new or empty folder DIR.

    By default DIR is called NAME-provider, as is the distribution. The project is complete: its provider sends lines
    to a server over TCP, its tests hold it to the contract of a provider, and it can be built and installed. Prints
    the files that it made.
    """
    from pathlib import Path

    from mbframework.plugins.registry import names

    package = check_names(name, package, taken=names())
    if directory == "":
        raise ConfigurationError("'DIR' is empty; expected a path")
    folder = Path(directory if directory is not None else package.replace("_", "-"))
    texts = render(name, package)
    _write(folder, texts)
    for path in texts:
        click.echo(os.path.join(folder, path))
    narrate(
        f"{plural(len(texts), 'file')} made; next: cd {folder}, then python3 -m venv .venv,"
        " .venv/bin/pip install --editable '.[dev]' and .venv/bin/pytest"
    )


def check_names(name: str, package: str | None, *, taken: list[str]) -> str:
    """The import package of a provider that may have these names. Pure, but for the interpreter's own modules.

    :raises ConfigurationError: a name that cannot be one, or that somebody else has.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ConfigurationError(
            f"{name!r} cannot be the name of a provider, which is the scheme of its URLs; expected at most {_LONGEST}"
            " small letters and digits, with dashes between them, as 'acme' or 'acme-queue'",
            option="name",
        )
    if name in taken:
        raise ConfigurationError(
            f"there is a provider {name!r} already (see: mb providers {name}), and a scheme can be brought by one"
            " distribution only; choose another name",
            option="name",
        )
    chosen = f"{name.replace('-', '_')}_provider" if package is None else package
    if not _PACKAGE.fullmatch(chosen) or iskeyword(chosen) or len(chosen) > _LONGEST + len("_provider"):
        raise ConfigurationError(
            f"{chosen!r} cannot be the name of a package; expected small letters and digits, with underscores between"
            " them, as 'acme_provider'",
            option="package",
        )
    if chosen in sys.stdlib_module_names or chosen in ("mbtui", "tests") or chosen.startswith("mbframework"):
        raise ConfigurationError(
            f"the package name {chosen!r} belongs to somebody else; choose one of your own, as 'acme_provider'",
            option="package",
        )
    return chosen


def render(name: str, package: str) -> dict[str, str]:
    """What each file of the project says, by its path with slashes."""
    from mbframework.provider import API_VERSION

    words = {
        "scheme": name,
        "package": package,
        "distribution": package.replace("_", "-"),
        "name": "".join(part.capitalize() for part in name.split("-")),
        "version": version("mbframework"),
        "api": str(API_VERSION),
    }
    found = _templates(files("mbframework.cli") / "templates" / "provider", "")
    return {
        path.replace("src/package/", f"src/{package}/").replace("gitignore", ".gitignore"): Template(text).substitute(
            words
        )
        for path, text in sorted(found.items())
    }


def _templates(folder: Traversable, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in folder.iterdir():
        if each.is_dir():
            found |= _templates(each, f"{prefix}{each.name}/")
        elif each.name.endswith(".in"):
            found[prefix + each.name.removesuffix(".in")] = each.read_text(encoding="utf-8")
    return found


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Make the folder and what belongs into it. Nothing that is there is touched.

    :raises ConfigurationError: there is something in it.
    :raises OSError: the device, or a right.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} exists, and is not an empty folder; nothing was written: give another DIR, or empty it",
            option="directory",
        )
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Never in the place of a file that somebody made meanwhile.
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
