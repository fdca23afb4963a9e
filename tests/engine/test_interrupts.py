"""Signal handlers, finalisers and Ctrl-C in the middle of a write: nothing lost, nothing twice, no deadlock."""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer
from tests.engine.rig import FAST, SMALL, at_rest, eventually, in_state, numbers, program

STORM = """
import itertools
from mbframework_fake.provider import FakeProvider

provider = FakeProvider()
options = FAST | {"mode": sys.argv[2], "segment_size": "64KiB", "total_size": "64MiB", "live_wait": 0.02,
                  "channel_messages": 300, "linger": float(sys.argv[4]), "min_free": 0}
buffer = MessageBuffer(sys.argv[1], provider, **options)
armed = False
nested, tried, ticks = set(), set(), itertools.count()

def handler(number, frame):
    global armed
    tick = next(ticks)
    if tick % 3 == 0:
        tried.add(tick)
        buffer.write("nested", str(tick))
        nested.add(tick)
    elif armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handler)
stop = threading.Event()

def trouble():
    while not stop.wait(0.05):
        provider.down()
        stop.wait(0.03)
        provider.up()

threading.Thread(target=trouble, daemon=True).start()
certain, possible = [], set()
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
end = time.monotonic() + float(sys.argv[3])
number = 0
while time.monotonic() < end or min(len(certain), len(possible), len(nested)) <= 20:
    number += 1
    try:
        armed = True
        if number % 40 == 0:
            buffer.write_many("t", [f"{number} {part} " + "x" * 40 for part in range(30)])
        else:
            buffer.write("t", f"{number} 0 " + "x" * 40)
        armed = False
        certain.append(number)
    except KeyboardInterrupt:
        possible.add(number)
armed = False
signal.setitimer(signal.ITIMER_REAL, 0)
stop.set()
provider.up()
buffer.flush(60)
got = [tuple(map(int, m.value.split()[:2])) for m in provider.messages if m.topic == "t"]
assert got == sorted(set(got)), "out of order or doubled"
whole = {}
for first, part in got:
    whole.setdefault(first, []).append(part)
missing = sorted(set(certain) - set(whole))
assert not missing, f"{len(missing)} of {len(certain)} lost, from {missing[:3]} to {missing[-3:]}: {buffer.status()}"
assert set(whole) <= set(certain) | possible
for first in certain:
    assert whole[first] == list(range(30 if first % 40 == 0 else 1)), (first, whole[first])
deep = [int(m.value) for m in provider.messages if m.topic == "nested"]
assert len(deep) == len(set(deep)), "doubled"
assert nested <= set(deep) <= tried, f"{len(nested - set(deep))} of {len(nested)} that were put aside are lost"
sequences = [m.sequence for m in provider.messages]
assert sequences == sorted(set(sequences))
status = buffer.status()
assert status.balanced and status.accepted == status.delivered == len(sequences), status
signal.signal(signal.SIGALRM, signal.SIG_IGN)
buffer.close()
print(len(certain), len(possible), len(nested), flush=True)
"""


@pytest.mark.parametrize("mode, linger", [("buffer", 0), ("always", 0), ("always", 0.005), ("block", 0)])
def test_a_storm_of_signals(tmp_path: Path, mode: str, linger: float) -> None:
    with program(STORM, tmp_path / "b", mode, 0.7, linger) as child:
        certain, possible, nested = map(int, child.line().split())
        assert child.end()[0] == 0
    assert min(certain, possible, nested) > 20


def test_a_finaliser_may_write_wherever_the_collector_runs(tmp_path: Path) -> None:
    """Also on the buffer's own threads, while they hold its locks."""
    provider = FakeProvider()

    class Dying:
        def __init__(self, number: int) -> None:
            self.me, self.number = self, number

        def __del__(self) -> None:
            buffer.write("del", str(self.number))

    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            buffer.status()
            buffer.pressure  # noqa: B018
            provider.down()
            stop.wait(0.01)
            provider.up()
            stop.wait(0.01)

    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(20)
    try:
        with MessageBuffer(tmp_path / "b", provider, live_wait=0.01, **FAST) as buffer:
            in_state(buffer, "live")
            thread = threading.Thread(target=churn)
            thread.start()
            for number in range(3000):
                Dying(number)
                buffer.write("t", str(number))
            gc.set_threshold(*before)
            gc.collect()
            stop.set()
            thread.join()
            eventually(lambda: buffer.status().accepted == 6000, "what was put aside")
            buffer.flush(60)
            assert numbers(m for m in provider.messages if m.topic == "t") == list(range(3000))
            assert sorted(numbers(m for m in provider.messages if m.topic == "del")) == list(range(3000))
            assert at_rest(buffer)["delivered"] == 6000
    finally:
        gc.set_threshold(*before)


def test_what_is_put_aside_is_accepted_without_another_write(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        in_state(buffer, "live")
        with buffer.running_lane().lock:
            # As in a handler that interrupts status().
            assert buffer.write("t", "0") == 0
            assert buffer.write_many("t", ["1", "2"]) == range(0)
        provider.wait_for(3, 60)
        with buffer.running_lane().lock:
            buffer.write("t", "3")
    assert numbers(provider.messages) == [0, 1, 2, 3]


def test_what_is_put_aside_and_refused_is_logged_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = FakeProvider()
    provider.down()
    with MessageBuffer(tmp_path / "b", provider, on_full="reject", mode="always", **FAST | SMALL) as buffer:
        buffer.write("t", b"0")
        lane = buffer.running_lane()
        with lane.lock:
            for _ in range(400):
                buffer.write("t", bytes(1000))
        eventually(lambda: not lane.aside, "the end of what was put aside")
        refused = [record for record in caplog.records if "was not accepted: the buffer is full" in record.message]
        assert buffer.status().accepted == 401 - len(refused)
        assert len(refused) > 100
        assert {record.levelno for record in refused} == {logging.ERROR}
