"""How commands that only contributors have tell what they found: as text, as JSON, and into pages that ask for it,
between ``<!-- measured: NAME -->`` and ``<!-- /measured -->`` (:mod:`mbframework.bench.page`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mbframework.bench.page import ELSEWHERE, filled
from mbframework.bench.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options ``--json`` and ``--into``."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--into", action="append", default=[], metavar="PAGE", help="write its tables into this page")


def show(report: Report, chosen: argparse.Namespace) -> None:
    """Print it, and write it into the pages. Ends the program where a page asks for something else."""
    print(report.json() if chosen.json else report.text())
    for page in map(Path, chosen.into):
        try:
            page.write_text(filled(page.read_text(encoding="utf-8"), [report], ELSEWHERE), encoding="utf-8")
        except (OSError, ValueError) as error:
            sys.exit(f"{page}: {error}")
