"""The recipe of docs/compat.md: serializers that go on while the registry is down."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework.compat import KafkaProducer
from tests.compat.rig import WAIT_S
from tests.engine.rig import FAST

ROOT = Path(__file__).parents[2]
pytest.importorskip(
    "confluent_kafka.schema_registry.json_schema",
    reason="needs confluent-kafka's serializers; run: pip install 'confluent-kafka[json,schemaregistry]'",
    exc_type=ImportError,
)
SCHEMA = '{{"title": "Order", "type": "object", "properties": {{"{}": {{"type": "integer"}}}}}}'


def programs() -> list[str]:
    """The recipe's two programs."""
    text = (ROOT / "docs" / "compat.md").read_text().partition("## Schema Registry")[2]
    return [textwrap.dedent(code) for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


@pytest.fixture
def registry() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.compat.registry_stand_in"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Service:
    """A run of a program that uses the recipe; each has clients of its own."""

    def __init__(self, home: Path, url: str, broker: FakeBroker) -> None:
        self.home, self.url, self.broker = home, url, broker

    def send(self, *contents: dict[str, int], field: str = "id") -> None:
        from confluent_kafka.schema_registry.json_schema import JSONSerializer

        names: dict[str, Any] = {}
        exec(programs()[0], names)
        registry = names["RememberingRegistry"](
            {"url": self.url, "timeout": 2, "max.retries": 0}, str(self.home / "schema-ids.json")
        )
        serializer = JSONSerializer(SCHEMA.format(field), registry, conf={"subject.name.strategy.type": "TOPIC"})
        try:
            with KafkaProducer(
                buffer_directory=self.home / "outbox", provider=FakeProvider(self.broker),
                value_serializer=names["Serialized"](serializer), **FAST,
            ) as producer:  # fmt: skip
                for each in contents:
                    producer.send("orders", each).get(WAIT_S)
        finally:
            registry.close()


def test_it_goes_on_while_the_registry_is_down(tmp_path: Path, registry: subprocess.Popen[str]) -> None:
    assert registry.stdout is not None
    port = int(registry.stdout.readline())
    service = Service(tmp_path, f"http://127.0.0.1:{port}", FakeBroker())
    service.send({"id": 1}, {"id": 2})
    service.send({"id": 3})
    registry.kill()
    assert registry.stdout.read().split() == ["asked", "/subjects/orders-value/versions?normalize=False"]
    service.send({"id": 4})
    with pytest.raises(Exception, match="(?i)connect"):
        service.send({"other": 5}, field="other")
    assert [(message.value or b"")[:1] for message in service.broker.messages] == [b"\0"] * 4
    assert {struct.unpack(">I", (message.value or b"")[1:5]) for message in service.broker.messages} == {(100,)}
    assert [(message.value or b"")[5:] for message in service.broker.messages] == [
        b'{"id":%d}' % i if b" " not in (message.value or b"") else b'{"id": %d}' % i
        for i, message in enumerate(service.broker.messages, 1)
    ]


def test_the_page_shows_the_program_that_uses_it(tmp_path: Path, registry: subprocess.Popen[str]) -> None:
    """The second program as it stands, but for where it sends."""
    assert registry.stdout is not None
    port = int(registry.stdout.readline())
    broker = FakeBroker()

    def producer(bootstrap_servers: str, **arguments: Any) -> KafkaProducer:
        return KafkaProducer(provider=FakeProvider(broker), **FAST | {"close_timeout": WAIT_S} | arguments)

    names: dict[str, Any] = {"REGISTRY": f"http://127.0.0.1:{port}", "KafkaProducer": producer}
    first, second = programs()
    exec(first, names)
    second = second.replace('"schema-ids.json"', repr(str(tmp_path / "ids.json")))
    exec(second.replace('"outbox"', repr(str(tmp_path / "outbox"))), names)
    names["producer"].close()
    names["registry"].close()
    assert [(message.value or b"")[:5] for message in broker.messages] == [b"\0\0\0\0\x64"]
