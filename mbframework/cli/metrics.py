"""``mb metrics``: the figures of buffers for Prometheus, from their directories alone.

It needs prometheus-client (the extra ``prometheus``), which is imported when it is called for.
"""

from __future__ import annotations

import re
import select
from importlib.util import find_spec

import click

from mbframework.cli import Failure
from mbframework.cli.directories import directories_argument
from mbframework.cli.stopping import StopSignal
from mbframework.cli.terminal import narrate, plural
from mbframework.errors import ConfigurationError

_ADDRESS = re.compile(r"(?:(?P<host>[^:\[\]\s]+)|\[(?P<ipv6>[0-9a-fA-F:.%]+)\]):(?P<port>\d{1,5})", re.ASCII)
_DEFAULT = "127.0.0.1:9464"


@click.command()
@directories_argument
@click.option("--listen", metavar="HOST:PORT", help=f"Serve them there, until stopped.  [default: {_DEFAULT}]")
@click.option("--once", is_flag=True, help="Print them, and end.")
def metrics(directories: tuple[str, ...], listen: str | None, once: bool) -> None:
    """Serve the figures of the buffers in DIR... to Prometheus, at http://HOST:PORT/metrics.

    A directory that cannot be read is mbframework_up 0, and is read again at the next scrape. Whoever reaches the port
    reads the figures: there is no password.

    Exit status 0; 2: the address cannot be used, or prometheus-client is not installed.
    """
    if once and listen is not None:
        raise click.UsageError("--once prints, and --listen serves: give one of them")
    host, port = _address(_DEFAULT if listen is None else listen)
    if find_spec("prometheus_client") is None:
        raise Failure(
            "mb metrics needs prometheus-client, not installed here; run: pip install 'mbframework[prometheus]'"
        )
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from mbframework.metrics.prometheus import BufferCollector

    # Without a name for it, a registry would scrape in order to register.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BufferCollector(*directories))
    if once:
        click.echo(generate_latest(registry), nl=False)
        return
    with StopSignal() as stop:
        try:
            server, thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigurationError(f"--listen: {host}:{port}: {why}; give another address") from error
        # Port 0 is any that is free.
        shown = f"[{host}]" if ":" in host else host
        narrate(f"{plural(len(directories), 'buffer')} at http://{shown}:{server.server_port}/metrics")
        try:
            select.select([stop.fileno()], [], [])
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65_535:
        raise ConfigurationError(f"--listen: {text!r}: expected HOST:PORT such as {_DEFAULT!r}", option="listen")
    return match["host"] or match["ipv6"], int(match["port"])
