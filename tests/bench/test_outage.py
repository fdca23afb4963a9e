"""What a broker suffers while calls are measured: each fault is what it is called, and nothing of it stays."""

from __future__ import annotations

import socket

import pytest

from mbframework.bench.outage import PLAN, Course, Faults
from mbframework.testing.kafka import HOST, KafkaBroker


def test_a_broker_out_of_reach_neither_answers_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MBFRAMEWORK_TEST_KAFKA", raising=False)
    broker = KafkaBroker()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, broker.port), 5)
    with Faults(broker) as faults:
        faults.occupy()
        with pytest.raises(TimeoutError):
            socket.create_connection((HOST, broker.port), 0.2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, broker.port), 5)


def test_every_fault_of_the_plan_can_be_done_and_has_its_end() -> None:
    assert all(hasattr(Faults, moment.action) for moment in PLAN if moment.action)
    assert [moment.at for moment in PLAN] == sorted({moment.at for moment in PLAN})
    assert {"killed", "unreachable", "frozen"} < {moment.phase for moment in PLAN}
    assert PLAN[0].phase == "up"
    assert PLAN[-1].phase == "back"


def test_a_call_belongs_to_the_phase_that_had_begun() -> None:
    course = Course([0.0, 1.5, 3.0], ["up", "killed", "back"])
    assert [course.phase(at) for at in (0.0, 1.4, 1.5, 2.9, 3.0, 9.0)] == [
        "up",
        "up",
        "killed",
        "killed",
        "back",
        "back",
    ]
    assert str(course) == "0.0 s up, 1.5 s killed, 3.0 s back"
