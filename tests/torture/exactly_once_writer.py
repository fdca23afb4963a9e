"""The program that is killed: it writes numbered messages and sends them exactly once.

``python -m tests.torture.exactly_once_writer DIRECTORY URL TOPIC LIFE``

Messages are ``LIFE:NUMBER``, numbered from 0 in each life, and on disk when they are accepted; how many are is said on
standard output, after each portion. When standard input ends it delivers what waits, and ends itself. On SIGUSR1 it
shows where its threads are.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import sys

from mbframework import MessageBuffer

#: Messages that are accepted together.
PORTION = 50
#: Seconds between portions.
PACE_S = 0.02
#: A batch, hence a transaction, has at most so many messages.
BATCH = 500
KEYS = 16


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    directory, url, topic, life = sys.argv[1:]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("mbframework").setLevel(logging.INFO)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    number = 0
    with MessageBuffer(
        directory, url, mode="always", share=False, batch_messages=BATCH, retry_wait=0.05, retry_wait_max=0.5,
        catch_up="full", lock_timeout=5.0, close_timeout=60.0,
    ) as buffer:  # fmt: skip
        while not select.select([sys.stdin], [], [], PACE_S)[0]:
            numbers = range(number, number + PORTION)
            buffer.write_many(
                topic, [b"%s:%d" % (life.encode(), n) for n in numbers], keys=[b"%d" % (n % KEYS) for n in numbers]
            )
            number += PORTION
            os.write(1, b"%d\n" % number)
        buffer.flush(600)


if __name__ == "__main__":
    main()
