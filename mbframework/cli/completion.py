"""``mb completion``: the script that makes a shell complete ``mb``; it is click's."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


_HELP = """Print the completion script for a shell.

\b
bash:  eval "$(mb completion bash)" in ~/.bashrc
zsh:   eval "$(mb completion zsh)" in ~/.zshrc
fish:  mb completion fish > ~/.config/fish/completions/mb.fish
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """See the help text."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this click has no completion for {shell}", ctx)
    click.echo(found(ctx.find_root().command, {}, "mb", "_MB_COMPLETE").source())
