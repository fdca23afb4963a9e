"""``mb send``: each line of stdin becomes a message.

Promises
--------
- A line is everything before a newline, byte for byte; an empty line is a message, and so is a last one without
  newline. Lines are written as they come, many at a time where they come fast.
- What was accepted is delivered or on disk when the command has ended, the modes ``block`` and ``raise`` excepted;
  also after SIGINT, SIGTERM, or an error half-way.
- Memory is bounded: a line that no buffer takes is passed over and reported.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click

from mbframework.buffer import MessageBuffer
from mbframework.cli.options import config_option, configuration, directory_argument, provider_of, provider_option
from mbframework.cli.progress import progress_of_input
from mbframework.cli.stopping import StopSignal
from mbframework.cli.terminal import library_narrates, narrate, plural
from mbframework.errors import BufferFull, ConfigurationError, MessageError
from mbframework.intake import check_topic
from mbframework.printable import shell_word
from mbframework.units import MiB

#: Bytes; no buffer takes a longer message.
LONGEST_LINE = 16 * MiB
_READ = 1 << 18
_AT_ONCE = 10_000
_REFUSALS_SHOWN = 5


@click.command()
@directory_argument
@click.argument("topic")
@provider_option
@config_option
@click.option("--mode", metavar="MODE", help="block, raise, buffer or always: what to do about outages.")
@click.option("--key-separator", metavar="TEXT", help=r"What ends the key at the start of a line; '\t' is a tab.")
@click.option("--timeout", metavar="TIME", help="How long to wait for delivery at the end, as 10s.  [default: 5s]")
@click.pass_context
def send(
    ctx: click.Context,
    directory: str,
    topic: str,
    provider: str | None,
    file: str | None,
    mode: str | None,
    key_separator: str | None,
    timeout: str | None,
) -> None:
    """Write the lines of stdin as messages of TOPIC to the buffer in DIR, which is made where it is missing.

    Without a provider they are only written: `mb drain DIR` sends them.

    Exit status 0: every line was accepted, and is delivered or on disk. 1: lines were refused, the others accepted.
    2: the buffer cannot be used, or refused to go on. 128 + n: stopped by signal n; what was read is accepted.
    """
    separator = _separator(key_separator)
    check_topic(topic)
    config = configuration(directory, file, provider=provider, mode=mode, close_timeout=timeout)
    provider_of(config)
    if sys.stdin is None:
        raise ConfigurationError("stdin is closed; expected the lines there")
    if sys.stdin.isatty():
        narrate("each line becomes a message; Ctrl-D ends")
    with library_narrates(logging.WARNING), StopSignal() as stop:
        intake = Intake(MessageBuffer.from_config(config), topic, separator)
        try:
            fd = sys.stdin.fileno()
            with progress_of_input(fd, "sending") as progress:
                intake.take(_counted(_lines(fd, stop), progress))
        finally:
            try:
                intake.buffer.close()
            finally:
                _report(intake, sends=config.provider is not None)
    if stop.number:
        ctx.exit(128 + stop.number)
    ctx.exit(1 if intake.refused else 0)


@dataclass
class Intake:
    """Lines on their way into a buffer. ``accepted`` and ``refused`` count them."""

    buffer: MessageBuffer
    topic: str
    separator: bytes | None
    accepted: int = 0
    refused: int = 0

    def take(self, blocks: Iterator[Sequence[bytes | None]]) -> None:
        """Write them all. Raises NotAccepted: the buffer takes no more; ``accepted`` tells how far it came."""
        for block in blocks:
            self._write(block)

    def _write(self, lines: Sequence[bytes | None]) -> None:
        whole = [line for line in lines if line is not None]
        if len(whole) == len(lines):
            try:
                self._write_many(whole)
            except MessageError:
                # One of them is refused; all the others are wanted.
                pass
            else:
                return
        for line in lines:
            self._write_one(line)

    def _write_many(self, lines: Sequence[bytes]) -> None:
        keys, values = zip(*(self._split(line) for line in lines), strict=True)
        try:
            self.accepted += len(self.buffer.write_many(self.topic, values, keys=keys))
        except BufferFull as error:
            self.accepted += len(error.accepted)
            raise

    def _write_one(self, line: bytes | None) -> None:
        number = self.accepted + self.refused + 1
        if line is None:
            self._refuse(f"line {number:,}: longer than 16MiB")
            return
        key, value = self._split(line)
        try:
            self.buffer.write(self.topic, value, key=key)
        except MessageError as error:
            self._refuse(f"line {number:,}: {error}")
        else:
            self.accepted += 1

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if self.refused <= _REFUSALS_SHOWN:
            narrate(why)

    def _split(self, line: bytes) -> tuple[bytes | None, bytes]:
        if self.separator is None:
            return None, line
        key, found, value = line.partition(self.separator)
        return (key, value) if found else (None, line)


def _counted(
    blocks: Iterator[list[bytes | None]], progress: Callable[[int], object]
) -> Iterator[Sequence[bytes | None]]:
    """The same, in portions; each is told, in bytes, when the next one is asked for."""
    for block in blocks:
        for start in range(0, len(block), _AT_ONCE):
            portion = block[start : start + _AT_ONCE]
            yield portion
            progress(sum(len(line) + 1 for line in portion if line is not None))


def _separator(text: str | None) -> bytes | None:
    if text == "":
        raise ConfigurationError("--key-separator is empty; expected the text between key and value, such as ':'")
    return None if text is None else os.fsencode(text.replace("\\t", "\t"))


def _lines(source: int, stop: StopSignal) -> Iterator[list[bytes | None]]:
    """The lines of a file descriptor as they come, None for one that is too long; until ``stop`` is readable."""
    rest: list[bytes] = []
    held = 0
    while True:
        ready, _, _ = select.select([source, stop.fileno()], [], [])
        if stop.fileno() in ready:
            return
        data = os.read(source, _READ)
        if not data:
            break
        first, *more = data.split(b"\n")
        held += len(first)
        if held > LONGEST_LINE:
            rest.clear()
        else:
            rest.append(first)
        if more:
            *lines, last = more
            yield [_joined(rest, held), *lines]
            rest, held = [last], len(last)
    if held:
        yield [_joined(rest, held)]


def _joined(parts: Sequence[bytes], size: int) -> bytes | None:
    return b"".join(parts) if size <= LONGEST_LINE else None


def _report(intake: Intake, *, sends: bool) -> None:
    from mbframework.status import read

    buffer = intake.buffer
    waiting = next((lane.resident for lane in read(buffer.directory).lanes if lane.name == buffer.lane), 0)
    text = f"{plural(intake.accepted, 'message')} accepted"
    if intake.refused:
        text += f", {plural(intake.refused, 'line')} refused"
    if not waiting:
        text += "; nothing waits" if sends else ""
    elif sends:
        text += f"; {waiting:,} wait on disk: `mb drain {shell_word(buffer.directory)}` goes on sending"
    else:
        text += f"; {waiting:,} wait: `mb drain {shell_word(buffer.directory)} --provider URL` sends them"
    narrate(text)
