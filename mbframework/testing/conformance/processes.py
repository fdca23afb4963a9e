"""Rules on processes: what a kill leaves, and what a fork does."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator

from mbframework.message import Message
from mbframework.provider import Provider
from mbframework.testing.conformance.courier import attempt
from mbframework.testing.conformance.letters import numbered
from mbframework.testing.conformance.position import PositionRules
from mbframework.testing.conformance.rules import shut
from mbframework.testing.conformance.victim import SIZE

#: Seconds that a new process may take until its first batches are acknowledged.
_START_S = 60.0
_LANE = "killed"


class ProcessRules(PositionRules):
    """See the module."""

    def test_what_was_acknowledged_survives_a_kill(self) -> None:
        """A process is killed again and again (SIGKILL): what ``send()`` returned for can be read, in order."""
        self.need(not self.in_process, "the destination is in the memory of this process (in_process)")
        reached = acknowledged = 0
        known: list[Message] = []
        lacking: set[int] = set()
        for _ in range(self.kills):
            first, acknowledged = reached + 1, self._kill_a_sender(reached + 1)
            # One more batch may have been under way, and may or may not be there.
            reached = acknowledged + SIZE
            known += numbered(first, reached - first + 1, self.topic)
            lacking |= set(range(acknowledged + 1, reached + 1))
        self.judge(known, self.read(len(known) - len(lacking)), may_lack=lacking)

    def test_the_position_agrees_after_a_kill(self) -> None:
        """Exactly what is below ``committed()`` can be read; going on there, each message arrives once."""
        self.need(self.keeps_position, "the provider keeps no position (keeps_position)")
        self.need(not self.in_process, "the destination is in the memory of this process (in_process)")
        first = 1
        for _ in range(self.kills):
            acknowledged = self._kill_a_sender(first)
            with self.opened(_LANE) as provider:
                position = provider.committed()
                reached = position.sequence if position else 0
                assert reached > acknowledged, (
                    f"committed() told {position} after a kill; message {acknowledged} was acknowledged"
                )
                self.assert_agreement(numbered(1, acknowledged + 2 * SIZE, self.topic), position)
                first = reached

    def test_a_fork_does_no_harm(self) -> None:
        """A child holds a copy, never calls it, and ends. Where ``fork_safe`` is False the provider is closed before,
        as the lane does. The parent goes on as if nothing had been, and so does another provider after it.
        """
        messages = numbered(1, 10, self.topic)
        holder = [self.make()]
        try:
            holder[0].open(self.context())
            self._send(holder[0], messages[:2], "before the fork")
            with self._forked(holder):
                self._send(holder[0], messages[2:4], "while a child holds a copy")
            self._send(holder[0], messages[4:6], "after the child has ended and dropped its copy")
            with self._forked(holder):
                self._send(holder[0], messages[6:8], "while another child holds a copy")
                shut(holder[0])
                with self.opened() as another:
                    self._send(another, messages[8:], "by another provider, while a child holds a copy of the first")
        finally:
            shut(holder[0])
        self.judge(messages, self.read(10))

    @contextlib.contextmanager
    def _forked(self, holder: list[Provider]) -> Iterator[None]:
        if holder[0].fork_safe:
            with _child_with_a_copy(holder):
                yield
            return
        shut(holder[0])
        with _child_with_a_copy(holder):
            holder[0].open(self.context())
            yield

    def _send(self, provider: Provider, messages: list[Message], when: str) -> None:
        outcome = attempt(provider, messages)
        assert outcome.error is None, f"a send {when} failed: {outcome.said}. Does it need fork_safe = False?"

    def _kill_a_sender(self, first: int) -> int:
        """Let a process send from ``first`` on, kill it at some moment, and tell what it last had acknowledged."""
        context = self.context(_LANE)
        asked = {"url": self.url(), "buffer_id": context.buffer_id, "lane": _LANE, "topic": self.topic, "first": first}
        last = first - 1
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "mbframework.testing.conformance.victim"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(),
            )  # fmt: skip
            assert process.stdin
            assert process.stdout
            too_slow = threading.Timer(_START_S, process.kill)
            too_slow.start()
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                while last < first - 1 + 3 * SIZE and (line := process.stdout.readline()):
                    last = int(line)
                # At any moment of a batch.
                time.sleep(random.uniform(0, 0.01))
            finally:
                too_slow.cancel()
                too_slow.join()
                process.kill()
                # Not communicate(): it would miss what readline() has read ahead.
                rest = process.stdout.read()
                process.wait()
                process.stdin.close()
                process.stdout.close()
            errors.seek(0)
            said = errors.read()
        assert last >= first, f"the process that sends did not get a batch through: {said or 'it was too slow'}"
        whole = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        return int(whole[-1]) if whole else last


def environment() -> dict[str, str]:
    """For a Python that finds all that this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@contextlib.contextmanager
def _child_with_a_copy(holder: list[Provider]) -> Iterator[None]:
    """A forked process that does nothing, then drops its copy as a worker does that ends, and is gone."""
    waits, ends = os.pipe()
    with warnings.catch_warnings():
        # Clients have threads; that these and a fork get along is what is tried.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 0
        try:
            os.close(ends)
            os.read(waits, 1)
            holder.clear()
            gc.collect()
        except BaseException:  # noqa: BLE001  (nothing of this process may go on in pytest)
            traceback.print_exc()
            status = 1
        finally:
            os._exit(status)
    os.close(waits)
    try:
        yield
    finally:
        os.close(ends)
        _, ended = os.waitpid(child, 0)
    assert ended == 0, f"the child did not end well ({ended}): dropping the copy of a provider must not fail"
