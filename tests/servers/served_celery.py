"""A Celery program: its tasks write. The buffer is opened by the import, which is before the pool forks."""

from __future__ import annotations

import os
import sys

from celery import Celery

from mbframework import MessageBuffer

app = Celery("served_celery", broker=os.environ["BROKER"])
app.conf.update(
    broker_transport_options={"global_keyprefix": os.environ["PREFIX"]},
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=10,
)
buffer = MessageBuffer(os.environ["OUTBOX"], os.environ["DESTINATION"], mode=os.environ.get("MODE", "always"))


@app.task
def serve(first: int, count: int) -> None:
    """Write these numbers, and put down, one by one, those that were accepted."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        for number in range(first, first + count):
            buffer.write("served", str(number))
            os.write(ledger, f"{number} {os.getpid()}\n".encode())
    finally:
        os.close(ledger)


if __name__ == "__main__":
    tasks, each = map(int, sys.argv[1:])
    for task in range(tasks):
        serve.delay(task * each, each)
