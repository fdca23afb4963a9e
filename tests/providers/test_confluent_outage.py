"""The provider ``confluent`` in a real buffer, whose broker is killed and frozen; ``kafka`` goes through the same, and
more, in tests/torture."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbframework.testing.kafka import KafkaBroker
from tests.providers import exactly_once
from tests.providers.kafka_batches import NewTopic


@pytest.mark.timeout(180)
def test_outages_among_50_000_messages(kafka_control: KafkaBroker, kafka_topic: NewTopic, tmp_path: Path) -> None:
    topic = kafka_topic(1)
    url = f"confluent://{kafka_control.bootstrap}?send_timeout=2s&request_timeout=1s"
    exactly_once.outages_among_50_000(tmp_path / "b", url, kafka_control, topic, kills=1)
    found = [int(record.value or b"-1") for record in kafka_control.read_all(topic)]
    assert list(dict.fromkeys(found)) == list(range(50_000))
    # What was under way at each of the two outages, and at most that.
    assert len(found) - 50_000 <= 2 * 1000
