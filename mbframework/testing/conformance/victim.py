"""A process that sends until it is killed: ``python -m mbframework.testing.conformance.victim``.

Its instructions are one line of JSON on standard input; it prints the last sequence of every acknowledged batch.
"""

from __future__ import annotations

import json
import sys
from itertools import count

from mbframework.plugins.source import resolve_url
from mbframework.provider import Context
from mbframework.testing.conformance.courier import attempt
from mbframework.testing.conformance.hooks import RUN
from mbframework.testing.conformance.letters import numbered

#: Messages in a batch.
SIZE = 10


def main() -> None:
    """Send batch after batch, from the first sequence on."""
    asked = json.loads(sys.stdin.readline())
    context = Context(buffer_id=asked["buffer_id"], lane=asked["lane"], run=RUN)
    provider = resolve_url(asked["url"]).create(context)
    provider.open(context)
    for first in count(asked["first"], SIZE):
        outcome = attempt(provider, numbered(first, SIZE, asked["topic"]))
        if outcome.error is not None:
            sys.exit(outcome.said)
        print(first + SIZE - 1, flush=True)


if __name__ == "__main__":
    main()
