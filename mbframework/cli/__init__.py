"""The command ``mb``, also ``python -m mbframework``.

Promises
--------
- stdout carries what was asked for, stderr the narration. Texts of others have their control characters escaped.
- Every mistake is one line on stderr and exit status 2, never a traceback; ``mb --debug …`` shows that as well.
- Ctrl-C ends a command with 130, without a traceback, also while its module is imported.
- A command's module is imported when it is called for, and libraries of providers only by what needs them.
- NO_COLOR is respected, and only a terminal gets colours; a reader that goes away ends a command quietly.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from mbframework.cli.terminal import printable
from mbframework.errors import MessageBufferError

COMMANDS = (
    "demo",
    "send",
    "drain",
    "status",
    "check",
    "metrics",
    "providers",
    "new-provider",
    "simulate",
    "pause",
    "resume",
    "retry",
    "mode",
    "purge",
    "dead",
    "tail",
    "peek",
    "verify",
    "repair",
    "export",
    "import",
    "bench",
    "completion",
)
#: The exit status after Ctrl-C: 128 and the signal's number.
INTERRUPTED = 130
#: Commands that share a module with others.
_MODULES = dict.fromkeys(("pause", "resume", "retry", "mode", "purge"), "control")


class Failure(click.ClickException):
    """A command cannot do what was asked."""

    exit_code = 2


class _Commands(click.Group):
    """Each command is the object of its name, in the module of that name or the one that _MODULES tells.

    There a dash in the name is an underscore.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"{__name__}.{_MODULES.get(name, name)}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(COMMANDS)}"
            ctx.fail(f"no such command: {printable(name)!r}{hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except (MessageBufferError, OSError) as error:
            # --help and --version print before a command is called, and --help imports them all.
            click.echo(f"Error: {printable(_words(error))}", err=True)
            sys.exit(Failure.exit_code)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            # Most often while a command's module is imported: one that is worth stopping properly sees to it.
            if ctx.params["debug"]:
                traceback.print_exc()
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (MessageBufferError, OSError) as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise Failure(printable(_words(error))) from error


def _words(error: Exception) -> str:
    """The error as one sentence; the system's own errors name the file first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="mbframework", prog_name="mbframework")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """A durable outbox between programs and their message brokers."""
    del debug  # read by invoke()
    if os.environ.get("NO_COLOR"):
        ctx.color = False
