"""The command ``python -m tests.bench NAME``: one of the benchmarks of this folder."""

from __future__ import annotations

import argparse
import importlib
import tempfile

#: The benchmarks by name: the module that holds each, and what it measures.
BENCHMARKS = {
    "open": ("opening", "opening a buffer that holds 1 GB of backlog"),
    "write": ("writing", "the cost of write() and write_many()"),
    "drain": ("drain", "from a backlog on disk to a provider that only takes it, and reading alone"),
    "dashboard": ("dashboard", "mbtui: first paint, key to paint, CPU and memory, and what it costs the writer"),
    "kafka": ("kafka_throughput", "from a backlog on disk into a real Kafka broker, and other clients' pace"),
    "latency": ("latency", "write() latency while a real Kafka broker is killed and frozen"),
    "providers": ("providers", "each provider through the whole buffer, beside its bare client"),
    "outage": ("outage", "5 GB into a buffer of 1 GB while the provider is away: accounts, order, memory, disk"),
}


def main() -> None:
    """Run one benchmark and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=main.__doc__)
    chooser = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    modules = {}
    for name, (module, help_) in BENCHMARKS.items():
        modules[name] = importlib.import_module(f"tests.bench.{module}")
        command = chooser.add_parser(name, help=help_, description=modules[name].__doc__)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument(
            "--directory", default=tempfile.gettempdir(), help="where buffers are made (default: %(default)s)"
        )
        modules[name].add_arguments(command)
    chosen = parser.parse_args()
    report = modules[chosen.name].run(chosen)
    print(report.json(chosen.directory) if chosen.json else report.text(chosen.directory))


if __name__ == "__main__":
    main()
