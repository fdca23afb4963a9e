"""``python -m tests.model``: crash points until there are enough; the last line is the verdict."""

from __future__ import annotations

import argparse
import sys

from tests.model import runner


def main() -> int:
    """0: no stop broke a promise; 1: one did, and is told."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--points", type=int, default=100_000, help="distinct crash points (100000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--history", help="only this script, or 'history N'")
    parser.add_argument("--path", choices=list(runner.PATHS), default="C", help="with --history: who stores")
    asked = parser.parse_args()
    given = None
    if asked.history:
        parts = 1 if asked.history.startswith("history") else runner.ORDERS
        given = iter([runner.Order(asked.path, asked.history, asked.seed, part) for part in range(parts)])
    begun, told, total = runner.clock(), 0.0, runner.Result()
    for total in runner.run(asked.points, asked.seed, asked.processes, given):
        if runner.clock() - told > 10:
            told = runner.clock()
            print(f"{total.points:,} points …", file=sys.stderr, flush=True)
    print(total.line(asked.seed, runner.clock() - begun))
    if total.failure:
        print(total.failure, file=sys.stderr)
    return bool(total.failure)


if __name__ == "__main__":
    sys.exit(main())
