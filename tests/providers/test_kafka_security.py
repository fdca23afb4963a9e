"""The Kafka providers against a real broker that asks for passwords, shows certificates and guards its topics."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mbframework import MessageBuffer, status
from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.provider import Context, Provider
from mbframework.spool.layout import SENDER_EVENTS_FILE
from mbframework.status import LaneStatus
from mbframework.testing.kafka import KafkaBroker
from mbframework.testing.kafka_admin import KafkaAdmin
from tests.kafka_fixture import require_kafka
from tests.providers.certificates import Certificates, make_certificates
from tests.providers.kafka_batches import make_batch
from tests.providers.kafka_kinds import CONFLUENT, KAFKA, Kind, by_scheme

pytestmark = pytest.mark.xdist_group("kafka security")

CONTEXT = Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16)
USER, PASSWORD = "alice", "pass:w/rd"
#: What librdkafka says where it meets the refusal before the reason.
TERSE = "could not be verified|certificate verify failed"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The server's is the broker's."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker with a plain, a SASL and a TLS listener; to a topic without any rule everybody may write."""
    require_kafka()
    keystore = tmp_path_factory.mktemp("keystore") / "broker.pem"
    keystore.write_text(certificates.server_key.read_text() + certificates.server.read_text())
    login = "org.apache.kafka.common.security"
    broker = KafkaBroker(
        listeners=["SASL_PLAINTEXT", "SSL"],
        properties={
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{login}.plain.PlainLoginModule required"
            f' user_{USER}="{PASSWORD}";',
            "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.ssl.ssl.keystore.type": "PEM",
            "listener.name.ssl.ssl.keystore.location": str(keystore),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",
        },
        format_arguments=[
            *("--add-scram", f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"),
            *("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
        ],
    )
    if not broker.controllable:
        pytest.skip("this test needs a broker of its own; unset MBFRAMEWORK_TEST_KAFKA")
    with broker:
        broker.create_topic("open")
        broker.create_topic("guarded")
        yield broker


def send_one(provider: Provider, topic: str, value: bytes) -> None:
    """Open, deliver one message, close."""
    try:
        provider.open(CONTEXT)
        provider.send(make_batch(topic, [value]))
    finally:
        provider.close(5)


@by_scheme
@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256", "scram-sha-512", None])
def test_password(mechanism: Any, kind: Kind, guarded: KafkaBroker) -> None:
    host = guarded.address("SASL_PLAINTEXT")
    options: dict[str, Any] = {"username": USER, "sasl": mechanism}
    value = f"by {kind.scheme} and {mechanism}".encode()
    send_one(kind.make(host, password=PASSWORD, **options), "open", value)
    assert value in [record.value for record in guarded.read_all("open")]
    with pytest.raises(ProviderUnusable, match="check user name, password and mechanism") as caught:
        send_one(kind.make(host, password="wrong-" + PASSWORD, **options), "open", b"never")
    assert PASSWORD not in str(caught.value)
    assert b"never" not in [record.value for record in guarded.read_all("open")]


@by_scheme
def test_tls(kind: Kind, guarded: KafkaBroker, certificates: Certificates) -> None:
    host, value = guarded.address("SSL"), f"tls by {kind.scheme}".encode()
    send_one(kind.make(host, tls=True, tls_ca=str(certificates.authority)), "open", value)
    assert value in [record.value for record in guarded.read_all("open")]
    for wrong in (str(certificates.stranger), None):
        with pytest.raises(
            ProviderUnusable,
            match=f"certificate was refused: .*(self.signed|unable to get local issuer|{TERSE})",
        ):
            send_one(kind.make(host, tls=True, tls_ca=wrong), "open", b"never")
    assert b"never" not in [record.value for record in guarded.read_all("open")]


@by_scheme
def test_tls_checks_the_host_name(kind: Kind, guarded: KafkaBroker, certificates: Certificates) -> None:
    host = guarded.address("SSL").replace("127.0.0.1", "localhost")
    with pytest.raises(ProviderUnusable, match=f"refused: .*localhost.*(Hostname mismatch|{TERSE})"):
        send_one(kind.make(host, tls=True, tls_ca=str(certificates.authority)), "open", b"")


@by_scheme
def test_tls_without_verification_says_so(kind: Kind, guarded: KafkaBroker, caplog: pytest.LogCaptureFixture) -> None:
    provider = kind.make(guarded.address("SSL"), tls=True, tls_verify=False)
    with caplog.at_level(logging.WARNING, "mbframework"):
        send_one(provider, "open", b"unverified")
    assert "certificate is not checked" in caplog.text
    assert "not verified" in provider.describe()["security"]


@by_scheme
def test_tls_against_a_plain_port_and_the_other_way_round(
    kind: Kind, guarded: KafkaBroker, certificates: Certificates
) -> None:
    provider = kind.make(guarded.bootstrap, tls=True, tls_ca=str(certificates.authority), connect_timeout=1)
    with pytest.raises(SendFailed, match="cannot be reached: .*is it a port without TLS"):
        send_one(provider, "open", b"never")
    with pytest.raises(SendFailed, match="does it expect TLS"):
        send_one(kind.make(guarded.address("SSL"), connect_timeout=1), "open", b"never")


@by_scheme
@pytest.mark.parametrize("sasl", ["plain", "scram-sha-256"])
def test_no_log_tells_the_password(
    sasl: str, kind: Kind, guarded: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for debugging either, where kafka-python shows whole requests."""
    provider = kind.make(guarded.address("SASL_PLAINTEXT"), username=USER, password=PASSWORD, sasl=sasl)
    with caplog.at_level(logging.DEBUG):
        send_one(provider, "open", b"quietly")
    assert kind.scheme == "confluent" or "SaslAuthenticateRequest" in caplog.text
    assert PASSWORD not in caplog.text


@by_scheme
def test_missing_rights_block_and_reject_nothing(kind: Kind, guarded: KafkaBroker) -> None:
    """A user who may not write: nothing goes to the dead letters, and what other topics got is not repeated."""
    with KafkaAdmin(guarded.bootstrap) as admin:
        admin.allow("somebody-else", "guarded")
    before = len(guarded.read_all("open"))
    provider = kind.make(guarded.address("SASL_PLAINTEXT"), username=USER, password=PASSWORD, send_timeout=5)
    try:
        with pytest.raises(ProviderUnusable, match="guarded.*grant Write"):
            provider.send(make_batch("guarded", [b"1", b"2"]))
        mixed = make_batch(["open", "guarded", "open"], [b"m1", b"m2", b"m3"])
        with pytest.raises((SendFailed, ProviderUnusable)) as caught:
            provider.send(mixed)
        undelivered = caught.value.undelivered if isinstance(caught.value, SendFailed) else [0, 1, 2]
        assert undelivered is not None
        assert 1 in undelivered
        assert not getattr(caught.value, "rejected", {})
    finally:
        provider.close(5)
    arrived = [record.value for record in guarded.read_all("open")][before:]
    assert arrived == [value for i, value in ((0, b"m1"), (2, b"m3")) if i not in undelivered]
    assert guarded.read_all("guarded") == []


@by_scheme
def test_a_limit_that_we_may_not_ask_for_is_learned(kind: Kind, guarded: KafkaBroker) -> None:
    """Who may write need not be allowed to describe the topic: nothing is lost, and the limit is learned once."""
    small = f"small-{kind.scheme}"
    guarded.create_topic(small, config={"max.message.bytes": "20000"})
    with KafkaAdmin(guarded.bootstrap) as admin:
        admin.allow(USER, small)
    provider: Any = kind.make(guarded.address("SASL_PLAINTEXT"), username=USER, password=PASSWORD, batch_size=50_000)
    values = [b"%06d" % i * 20 for i in range(1_500)]
    try:
        provider.send(make_batch(small, values[:1_000]))
        learned = provider._connection
        provider.send(make_batch(small, values[1_000:]))
        assert provider._connection is learned, "the second batch was refused again"
    finally:
        provider.close(5)
    assert [record.value for record in guarded.read_all(small)] == values


def test_a_password_that_is_withdrawn_later(guarded: KafkaBroker, promised: Callable[[float], float]) -> None:
    """The clients go on trying once a broker refuses their credentials; the provider ends that and blocks."""
    place = guarded.address("SASL_PLAINTEXT")
    providers = [
        kind.make(place, username=USER, password=PASSWORD, sasl="plain", send_timeout=20) for kind in (KAFKA, CONFLUENT)
    ]
    settings = guarded.data / "server.properties"
    before = settings.read_text()
    try:
        for provider in providers:
            provider.open(CONTEXT)
            provider.send(make_batch("open", [b"while it was good"]))
        guarded.kill()
        settings.write_text(before.replace(f'user_{USER}="{PASSWORD}"', f'user_{USER}="another"'))
        guarded.restart()
        for provider in providers:
            started = time.monotonic()
            # librdkafka does not tell whether they had gone out when the broker refused us.
            with pytest.raises((SendFailed, ProviderUnusable), match="[Aa]uthentication"):
                provider.send(make_batch("open", [b"too late"]))
            with pytest.raises(ProviderUnusable, match="check user name, password and mechanism"):
                provider.send(make_batch("open", [b"too late"]))
            assert time.monotonic() - started < promised(10)
    finally:
        for provider in providers:
            provider.close(5)
        settings.write_text(before)
        guarded.restart()


@by_scheme
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("tls_ca", "tls_ca.*'/nowhere.pem' cannot be used: No such file"),
        ("tls_cert", "tls_cert.*'/nowhere.pem' cannot be used: No such file"),
    ],
)
def test_files_that_are_not_there(option: str, message: str, kind: Kind) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind.make("h", tls=True, **{option: "/nowhere.pem"})


@by_scheme
@pytest.mark.parametrize("taken", ["ANY", "WRITE"])
def test_a_right_that_is_revoked_under_way_blocks_the_lane(
    taken: str, kind: Kind, guarded: KafkaBroker, tmp_path: Path
) -> None:
    """The whole engine: it is shown in the directory, nothing is buried, and it goes on by itself in order."""
    topic = f"revoked-{kind.scheme}-{taken.lower()}"
    guarded.create_topic(topic)
    url = f"{kind.scheme}://{USER}:{quote(PASSWORD, safe='')}@{guarded.address('SASL_PLAINTEXT')}?sasl=plain"
    directory = str(tmp_path / "outbox")
    with KafkaAdmin(guarded.bootstrap) as admin, MessageBuffer(directory, url, retry_wait_max=0.3) as buffer:
        # Without any rule the topic would be open to everybody.
        admin.allow("somebody-else", topic)
        admin.allow(USER, topic, "WRITE")
        admin.allow(USER, topic, "DESCRIBE")
        for number in range(100):
            buffer.write(topic, b"%03d" % number)
        buffer.flush(60)
        admin.revoke(USER, topic, taken)
        for number in range(100, 200):
            buffer.write(topic, b"%03d" % number)
        lane = _await(directory, topic, state="blocked", dead=0, delivered=100, resident=100)
        assert "grant Write" in f"{lane.last_error}"
        admin.allow(USER, topic, "WRITE")
        buffer.flush(60)
    [lane] = status.read(directory).lanes
    assert (lane.dead, lane.lost, lane.delivered, lane.balanced) == (0, 0, 200, True)
    told = [json.loads(line) for line in Path(directory, lane.name, SENDER_EVENTS_FILE).read_text().splitlines()]
    assert any(event["kind"] == "blocked" and topic in event["reason"] for event in told)
    assert [record.value for record in guarded.read_all(topic)] == [b"%03d" % number for number in range(200)]


def _await(directory: str, word: str, **expected: object) -> LaneStatus:
    """The lane, once its directory tells this of it, with this word in its last error; what is there is up to a second
    old."""
    deadline = time.monotonic() + 60
    while True:
        [lane] = status.read(directory).lanes
        told = {name: getattr(lane, name) for name in expected}
        if told == expected and word in f"{lane.last_error}":
            return lane
        assert time.monotonic() < deadline, f"{told}, {lane.last_error}; expected {expected}"
        time.sleep(0.05)  # a directory can only be looked at
