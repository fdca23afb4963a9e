"""The fixture ``mqtt_server``: one real MQTT broker for the whole run.

Without one its tests are skipped; the reason names the command that enables them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbframework.testing.kafka_probe import free_ports
from mbframework.testing.mqtt import MosquittoServer
from tests.providers.certificates import Certificates, make_certificates

#: Passwords by users. ``writer`` may publish everywhere but below ``closed/``; ``reader`` may do all.
MQTT_USERS = {"writer": "hush-hush", "reader": "reader"}
_RIGHTS = """
user writer
topic deny closed/#
topic write #
user reader
topic readwrite #
"""
#: Bytes of the largest packet that it takes.
MQTT_LARGEST = 2 << 20


def require_mqtt() -> None:
    """Skip the test where no broker can be had."""
    if reason := MosquittoServer.available():
        pytest.skip(f"no MQTT server: {reason}")


@pytest.fixture(scope="session")
def mqtt_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """With which the server listens for TLS."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def mqtt_tls_port() -> int:
    """Where it does so; it asks for a client's certificate."""
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="session")
def mqtt_server(
    mqtt_certificates: Certificates, mqtt_tls_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MosquittoServer]:
    """A running broker, shared by all tests: each uses a prefix of its own.

    A test that ends or freezes it asks for ``mqtt_control`` instead.
    """
    require_mqtt()
    rights: Path = tmp_path_factory.mktemp("mqtt") / "rights"
    rights.write_text(_RIGHTS)
    rights.chmod(0o600)
    settings = [
        f"max_packet_size {MQTT_LARGEST}",
        f"acl_file {rights}",
        f"listener {mqtt_tls_port} 127.0.0.1",
        f"cafile {mqtt_certificates.authority}",
        f"certfile {mqtt_certificates.server}",
        f"keyfile {mqtt_certificates.server_key}",
        "require_certificate true",
    ]
    with MosquittoServer(settings, MQTT_USERS) as server:
        yield server


@pytest.fixture
def mqtt_control(mqtt_server: MosquittoServer) -> Iterator[MosquittoServer]:
    """The same broker for a test that ends or freezes it; it runs again afterwards, however the test ended."""
    yield mqtt_server
    mqtt_server.ensure_running()


@pytest.fixture
def mqtt_prefix() -> str:
    """A prefix that no other test uses."""
    return f"{uuid.uuid4().hex}/"
