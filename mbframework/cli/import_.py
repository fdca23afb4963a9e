"""``mb import``: lines of JSON, as ``mb export`` prints them, become messages.

Promises
--------
- Lines are taken in order. The first one that is refused ends it: everything in front of it is accepted, nothing behind
  it, and what is told is where to go on.
- What was accepted is delivered or on disk when the command has ended, as for ``mb send``.
- Memory is bounded by the longest line that a message can have.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from mbframework.buffer import MessageBuffer
from mbframework.cli.options import config_option, configuration, directory_argument, provider_option
from mbframework.cli.progress import progress_of_input
from mbframework.cli.stopping import StopSignal
from mbframework.cli.terminal import library_narrates, narrate, plural
from mbframework.errors import ConfigurationError, MessageError
from mbframework.files import Files
from mbframework.printable import shell_word
from mbframework.transfer import from_line
from mbframework.units import MiB, format_size

#: Bytes: a message of 16 MiB, each byte of which is escaped, and the rest of its line.
LONGEST_LINE = 100 * MiB
_READ = 1 << 18
_TOLD_S = 0.2


class Line(NamedTuple):
    """A line, its number from 1 on, and where in the file it ends. ``content`` is None where it is too long."""

    number: int
    content: bytes | None
    end: int


@click.command("import")
@directory_argument
@click.argument("source", metavar="[FILE]", type=click.Path(), default="-")
@provider_option
@config_option
@click.option("--from-line", metavar="N", type=click.IntRange(1), default=1, help="Go on with line N.  [default: 1]")
@click.option("--timeout", metavar="TIME", help="How long to wait for delivery at the end, as 10s.  [default: 5s]")
@click.pass_context
def import_(
    ctx: click.Context, directory: str, source: str, provider: str | None, file: str | None, from_line: int,
    timeout: str | None,
) -> None:  # fmt: skip
    """Write the messages in FILE (or stdin) to the buffer in DIR, which is made where it is missing.

    Without a provider they are only written: `mb drain DIR` sends them.

    Exit status 0: all were accepted. 1: a line was refused; those in front of it are accepted, none behind it. 2: the
    buffer cannot be used, or takes no more. 128 + n: stopped by signal n.
    """
    config = configuration(directory, file, provider=provider, close_timeout=timeout)
    files = Files()
    fd = _open(files, source)
    try:
        with library_narrates(logging.WARNING), StopSignal() as stop:
            intake = Intake(MessageBuffer.from_config(config), from_line)
            try:
                with progress_of_input(fd, "importing") as progress:
                    intake.take(_lines(fd, stop), progress)
            finally:
                try:
                    intake.buffer.close()
                finally:
                    _report(intake, source, stop.number)
    finally:
        if source != "-":
            files.close(fd)
    ctx.exit(128 + stop.number if stop.number else 1 if intake.refused else 0)


class Intake:
    """Lines on their way into a buffer. ``next`` is the number of the first line that is not accepted; ``refused``
    says why."""

    def __init__(self, buffer: MessageBuffer, first: int) -> None:
        self.buffer = buffer
        self.accepted = 0
        self.next = first
        self.refused = ""

    def take(self, lines: Iterator[Line], progress: Callable[[int], object]) -> None:
        """Write them up to the first that is refused. Raises NotAccepted: the buffer takes no more."""
        done = end = 0
        told_at = time.monotonic()
        for number, content, end in lines:
            if number < self.next:
                continue
            try:
                self._write(content)
            except MessageError as error:
                self.refused = str(error)
                return
            self.next = number + 1
            if end - done >= _READ or time.monotonic() - told_at >= _TOLD_S:
                progress(end - done)
                done, told_at = end, time.monotonic()
        progress(end - done)

    def _write(self, content: bytes | None) -> None:
        if content is None:
            raise MessageError(f"longer than {format_size(LONGEST_LINE)}; no message is")
        if not content.strip():
            return
        parcel = from_line(content)
        self.buffer.write(
            parcel.topic, parcel.value, parcel.key, parcel.headers or None, parcel.partition, parcel.timestamp
        )
        self.accepted += 1


def _open(files: Files, source: str) -> int:
    if source != "-":
        return files.open(source, write=False)
    if sys.stdin is None:
        raise ConfigurationError("stdin is closed; expected the lines there, or a file")
    return sys.stdin.fileno()


def _lines(source: int, stop: StopSignal) -> Iterator[Line]:
    """The lines of a file descriptor as they come, until ``stop`` is readable. Empty ones too: they have numbers."""
    parts: list[bytes] = []
    held, number, end = 0, 1, 0
    while True:
        ready, _, _ = select.select([source, stop.fileno()], [], [])
        if stop.fileno() in ready:
            return
        data = os.read(source, _READ)
        *whole, rest = data.split(b"\n")
        for piece in whole:
            held += len(piece)
            end += len(piece) + 1
            yield Line(number, b"".join([*parts, piece]) if held <= LONGEST_LINE else None, end)
            parts, held, number = [], 0, number + 1
        held += len(rest)
        end += len(rest)
        if held <= LONGEST_LINE:
            parts.append(rest)
        else:
            parts.clear()
        if not data:
            if held:
                yield Line(number, b"".join(parts) if held <= LONGEST_LINE else None, end)
            return


def _report(intake: Intake, source: str, stopped: int) -> None:
    text = f"{plural(intake.accepted, 'message')} accepted"
    if intake.refused:
        text = f"line {intake.next:,}: {intake.refused}; {text} in front of it"
    if intake.refused or stopped or sys.exception() is not None:
        again = ", given the same lines again" if source == "-" else f" {shell_word(source)}"
        text += f"; to go on: mb import {shell_word(intake.buffer.directory)} --from-line {intake.next}{again}"
    narrate(text)
