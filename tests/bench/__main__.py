"""``python -m tests.bench dashboard``: what ``mbtui`` costs. The other benchmarks are ``mb bench``."""

from __future__ import annotations

import argparse
import tempfile

from mbframework.bench.machine import facts
from tests.bench import dashboard


def main() -> None:
    """Run it and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    chooser = parser.add_subparsers(required=True, metavar="NAME")
    command = chooser.add_parser("dashboard", description=dashboard.__doc__)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where buffers are made (default: %(default)s)"
    )
    dashboard.add_arguments(command)
    chosen = parser.parse_args()
    machine = facts(chosen.directory)
    report = dashboard.run(chosen)
    report.machine = machine
    print(report.json() if chosen.json else report.text())


if __name__ == "__main__":
    main()
