"""The fixture ``rabbitmq_server``: one real RabbitMQ for the whole run.

Without one its tests are skipped; the reason names the command that enables them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from mbframework.testing.kafka_probe import free_ports
from mbframework.testing.rabbitmq import RabbitServer, RabbitUser
from tests.providers.certificates import Certificates, make_certificates

#: Bytes of the largest message that it takes.
RABBITMQ_LARGEST = 2 << 20
#: May publish to the default exchange, and nothing else.
WRITER = RabbitUser("hush-hush", configure="^$", write="^amq\\.default$", read="^$")


def require_rabbitmq() -> None:
    """Skip the test where no RabbitMQ can be had."""
    if reason := RabbitServer.available():
        pytest.skip(f"no RabbitMQ server: {reason}")


@pytest.fixture(scope="session")
def rabbitmq_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """With which the server listens for TLS."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def rabbitmq_tls_port() -> int:
    """Where it does so; it asks for a client's certificate."""
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="session")
def rabbitmq_server(rabbitmq_certificates: Certificates, rabbitmq_tls_port: int) -> Iterator[RabbitServer]:
    """A running RabbitMQ, shared by all tests: each uses a prefix of its own.

    A test that kills or freezes it asks for ``rabbitmq_control`` instead.
    """
    require_rabbitmq()
    settings = {
        "max_message_size": str(RABBITMQ_LARGEST),
        "listeners.ssl.default": f"127.0.0.1:{rabbitmq_tls_port}",
        "ssl_options.cacertfile": str(rabbitmq_certificates.authority),
        "ssl_options.certfile": str(rabbitmq_certificates.server),
        "ssl_options.keyfile": str(rabbitmq_certificates.server_key),
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
    }
    with RabbitServer(settings, {"writer": WRITER}) as server:
        yield server


@pytest.fixture
def rabbitmq_control(rabbitmq_server: RabbitServer) -> Iterator[RabbitServer]:
    """The same RabbitMQ for a test that kills or freezes it; it runs again afterwards, however the test ended."""
    yield rabbitmq_server
    rabbitmq_server.ensure_running()


@pytest.fixture
def rabbitmq_prefix() -> str:
    """A prefix that no other test uses."""
    return f"{uuid.uuid4().hex}."
