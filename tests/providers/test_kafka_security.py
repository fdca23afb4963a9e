"""The Kafka providers against a real broker that asks for passwords, shows certificates and guards its topics."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mbframework.errors import ConfigurationError, ProviderUnusable, SendFailed
from mbframework.provider import Context, Provider
from mbframework.testing.kafka import KafkaBroker
from tests.kafka_fixture import require_kafka
from tests.providers.kafka_batches import make_batch
from tests.providers.kafka_kinds import Kind, by_scheme

CONTEXT = Context(buffer_id="0" * 32, lane="0", run=b"\0" * 16)
USER, PASSWORD = "alice", "pass:w/rd"


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, a broker that it vouches for, and an authority that vouches for nobody."""

    authority: Path
    broker: Path
    stranger: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made by OpenSSL; the broker's is for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("the tests of Kafka with TLS need openssl; run: apt-get install -y openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("authority", "stranger"):
        # From 3.13 on Python asks of an authority that it says what its key is for.
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl(*new, "-x509", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", *usage)
    openssl(*new, "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=broker")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        *("x509", "-req", "-in", "broker.csr", "-out", "broker.crt", "-extfile", "names"),
        *("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"),
    )
    (folder / "broker.pem").write_text((folder / "broker.key").read_text() + (folder / "broker.crt").read_text())
    return Certificates(folder / "authority.pem", folder / "broker.pem", folder / "stranger.pem")


@pytest.fixture(scope="module")
def guarded(certificates: Certificates) -> Iterator[KafkaBroker]:
    """A broker with a plain, a SASL and a TLS listener; everybody may do what no rule forbids."""
    require_kafka()
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
            "listener.name.ssl.ssl.keystore.location": str(certificates.broker),
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
            match="certificate was refused: .*(self.signed|unable to get local issuer|could not be verified)",
        ):
            send_one(kind.make(host, tls=True, tls_ca=wrong), "open", b"never")
    assert b"never" not in [record.value for record in guarded.read_all("open")]


@by_scheme
def test_tls_checks_the_host_name(kind: Kind, guarded: KafkaBroker, certificates: Certificates) -> None:
    host = guarded.address("SSL").replace("127.0.0.1", "localhost")
    with pytest.raises(ProviderUnusable, match="refused: .*localhost.*(Hostname mismatch|could not be verified)"):
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
    with pytest.raises(SendFailed, match="cannot be reached"):
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
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType

    admin = KafkaAdminClient(bootstrap_servers=guarded.bootstrap)
    rule = ACL(
        principal=f"User:{USER}",
        host="*",
        operation=ACLOperation.WRITE,
        permission_type=ACLPermissionType.DENY,
        resource_pattern=ResourcePattern(ResourceType.TOPIC, "guarded"),
    )
    admin.create_acls([rule])
    admin.close()
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
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType

    small = f"small-{kind.scheme}"
    guarded.create_topic(small, config={"max.message.bytes": "20000"})
    admin = KafkaAdminClient(bootstrap_servers=guarded.bootstrap)
    admin.create_acls(
        [
            ACL(
                principal=f"User:{USER}",
                host="*",
                operation=operation,
                permission_type=ACLPermissionType.ALLOW,
                resource_pattern=ResourcePattern(ResourceType.TOPIC, small),
            )
            for operation in (ACLOperation.WRITE, ACLOperation.DESCRIBE)
        ]
    )
    admin.close()
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


@by_scheme
def test_a_password_that_is_withdrawn_later(kind: Kind, guarded: KafkaBroker) -> None:
    """The clients go on trying once a broker refuses their credentials; the provider ends that and blocks."""
    provider = kind.make(
        guarded.address("SASL_PLAINTEXT"), username=USER, password=PASSWORD, sasl="plain", send_timeout=20
    )
    settings = guarded.data / "server.properties"
    before = settings.read_text()
    try:
        provider.open(CONTEXT)
        provider.send(make_batch("open", [b"while it was good"]))
        guarded.kill()
        settings.write_text(before.replace(f'user_{USER}="{PASSWORD}"', f'user_{USER}="another"'))
        guarded.restart()
        started = time.monotonic()
        with pytest.raises(ProviderUnusable, match="check user name, password and mechanism"):
            provider.send(make_batch("open", [b"too late"]))
        assert time.monotonic() - started < 10
    finally:
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
