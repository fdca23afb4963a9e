"""``python -m tests.bench dashboard``: what ``mbtui`` costs; ``… monitor``: what a look does; ``… profile``: where the
time goes on each hot path. Else see ``mb bench``."""

from __future__ import annotations

import argparse
import tempfile

from mbframework.bench.machine import facts
from tests.bench import dashboard, looks, printed, shares


def main() -> None:
    """Run it and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    chooser = parser.add_subparsers(required=True, metavar="NAME")
    for name, module in (("dashboard", dashboard), ("monitor", looks), ("profile", shares)):
        command = chooser.add_parser(name, description=module.__doc__)
        command.add_argument(
            "--directory", default=tempfile.gettempdir(), help="where buffers are made (default: %(default)s)"
        )
        printed.add_arguments(command)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    chosen = parser.parse_args()
    machine = facts(chosen.directory)
    report = chosen.run(chosen)
    report.machine = machine
    printed.show(report, chosen)


if __name__ == "__main__":
    main()
