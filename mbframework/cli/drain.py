"""``mb drain``: only the sender, beside a process that writes, or for a backlog that one left behind.

The sidecar runs in a thread of its own, so that a signal's handler never meets a lock that it holds.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import click

from mbframework.cli.options import config_option, configuration, directory_argument, provider_option
from mbframework.cli.stopping import StopSignal
from mbframework.cli.terminal import library_narrates, narrate, plural
from mbframework.errors import ConfigurationError
from mbframework.sidecar import Sidecar
from mbframework.status import LaneStatus, read

_LOOK_S = 0.5
_PROGRESS_S = 5.0


@click.command()
@directory_argument
@provider_option
@config_option
@click.option("--until-empty", is_flag=True, help="End when nothing waits any more, or what waits takes a person.")
def drain(directory: str, provider: str | None, file: str | None, until_empty: bool) -> None:
    """Send what the buffer in DIR holds, and what another process writes into it meanwhile.

    Exit status 0: stopped by SIGINT or SIGTERM (the batch in hand is finished first), or nothing waits any more.
    1: with --until-empty: what still waits is blocked, and takes a person. 2: it cannot begin: not a buffer, no
    provider; or with --until-empty: another process is sending, a lane is paused, or cannot be read.
    """
    config = configuration(directory, file, provider=provider)
    if config.provider is None and not config.lanes:
        raise ConfigurationError(
            "no provider to send to: give --provider URL, set MBFRAMEWORK_PROVIDER, or name it in the file of --config",
            option="provider",
        )
    sidecar = Sidecar.from_config(config)
    found = read(directory)
    before = {lane.name: lane for lane in found.lanes}
    if until_empty and not found.problems and not any(lane.resident for lane in before.values()):
        narrate(f"nothing waits in {directory}")
        return
    with library_narrates(logging.INFO), StopSignal(sidecar.stop), ThreadPoolExecutor(1, "mb-drain") as pool:
        running = pool.submit(sidecar.run, until_empty=until_empty)
        watch = Watch(sidecar)
        while not running.done():
            wait([running], _LOOK_S)
            watch.look()
        running.result()
    after = _lanes(directory)
    _report(before, after, sidecar)
    if until_empty and sidecar.blocked:
        for name, why in sidecar.blocked.items():
            waiting = f"{plural(after[name].resident, 'message')} wait" if name in after else "messages wait"
            narrate(f"lane {name} is blocked, {waiting}: {why}; mend that, then drain it again")
        sys.exit(1)


class Watch:
    """Tells which lanes others send, and on a terminal how far it is."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._told: dict[str, str] = {}
        self._shows_progress = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + _PROGRESS_S

    def look(self) -> None:
        """To be called now and then."""
        held = dict(self._sidecar.held)
        for name, holder in held.items():
            if self._told.get(name) != holder:
                narrate(f"lane {name} is being sent by {holder}; taken over when it ends")
        self._told = held
        if self._shows_progress and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_S
            for lane in _lanes(self._sidecar.directory.path).values():
                narrate(f"lane {lane.name}: {lane.state}, {plural(lane.resident, 'message')} to go")


def _lanes(directory: str) -> dict[str, LaneStatus]:
    return {lane.name: lane for lane in read(directory).lanes}


def _report(before: Mapping[str, LaneStatus], after: Mapping[str, LaneStatus], sidecar: Sidecar) -> None:
    """What became of the messages of the lanes that were ours."""
    ours = [name for name in sidecar.served if name in after]
    parts: list[str] = []
    for account in ("delivered", "dead", "expired", "pruned", "lost"):
        known = sum(getattr(before[name], account) for name in ours if name in before)
        count = sum(getattr(after[name], account) for name in ours) - known
        if count or account == "delivered":
            parts.append(f"{plural(count, 'message')} {account}" if not parts else f"{count:,} {account}")
    waiting = sum(lane.resident for lane in after.values())
    narrate(f"{', '.join(parts)}; {f'{waiting:,} wait' if waiting else 'nothing waits'}")
