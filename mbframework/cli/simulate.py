"""``mb simulate``: the simulator of the extra ``tui``, with the same options as ``mbtui --simulate``.

It is found by its name when it is called for: nothing else of this package needs a screen library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

NEEDED = ("textual", "mbtui")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def simulate(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Watch a buffer work while you make its provider slow, unreachable or failing (needs the extra ``tui``).

    The options are those of ``mbtui --simulate``; --help prints them.
    """
    from mbframework.cli import Failure

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Failure(
            f"the simulator needs {' and '.join(missing)}, not installed here; run: pip install 'mbframework[tui]'"
        )
    ctx.exit(import_module("mbtui.simulator").main(arguments, name="mb simulate"))
