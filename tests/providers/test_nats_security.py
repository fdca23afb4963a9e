"""Who may do what, against a real server: passwords, tokens, NKeys, credentials, rights, and TLS."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nkeys
import pytest

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.testing.http import HttpServer
from mbframework.testing.nats import NatsServer
from tests.nats_fixture import require_nats
from tests.providers.batches import context, make_batch
from tests.providers.certificates import Certificates, make_certificates
from tests.providers.made import New
from tests.providers.nats_reading import Plain, entries
from tests.providers.secured import both_sides_are_checked


class Key:
    """A pair of keys: a user's, an account's, an operator's."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def jwt(self, subject: str, name: str, **content: Any) -> str:
        """A claim about the subject that this one has signed."""
        claims = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject, "nats": content}
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        parts = [_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)]
        return ".".join([*parts, _base64(self._pair.sign(".".join(parts).encode()))])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_a_token(new: New) -> None:
    with NatsServer('authorization { token: "s3cr3t" }') as server:
        url = f"{server.url}/ORDERS?create=orders"
        new(f"{url}&token=s3cr3t").send(make_batch(1, 3))
        with pytest.raises(
            ProviderUnusable, match="Authorization Violation.*; check user name and password"
        ) as refused:
            new(f"{url}&token=guessed")
        assert "guessed" not in str(refused.value)
        with pytest.raises(ProviderUnusable, match="Authorization Violation"):
            new(url)


def test_an_nkey(new: New, tmp_path: Path) -> None:
    key, stranger = Key(nkeys.PREFIX_BYTE_USER), Key(nkeys.PREFIX_BYTE_USER)
    seed = tmp_path / "seed"
    seed.write_bytes(key.seed + b"\n")
    with NatsServer(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        url = f"{server.url}/ORDERS?create=orders"
        new(f"{url}&nkey=file:{seed}").send(make_batch(1, 3))
        with pytest.raises(ProviderUnusable, match="Authorization Violation"):
            new(f"{url}&nkey={stranger.seed.decode()}")


def test_credentials(new: New, tmp_path: Path) -> None:
    operator, account, user = (
        Key(prefix) for prefix in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    system = Key(nkeys.PREFIX_BYTE_ACCOUNT)
    accounts = ", ".join(
        f"{one.public}: {operator.jwt(one.public, 'A', type='account', version=2, limits=limits | more)}"
        for one, more in ((account, storage), (system, {}))
    )
    files = {}
    for name, signer in (("good", account), ("forged", Key(nkeys.PREFIX_BYTE_ACCOUNT))):
        jwt = signer.jwt(user.public, "U", type="user", version=2, subs=-1, data=-1, payload=-1)
        files[name] = tmp_path / f"{name}.creds"
        files[name].write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
    signed = operator.jwt(operator.public, "O", type="operator", version=2)
    settings = (
        f"operator: {signed}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{ {accounts} }}"
    )
    with NatsServer(settings) as server:
        url = f"{server.url}/ORDERS?create=orders"
        new(f"{url}&credentials={files['good']}").send(make_batch(1, 3))
        with pytest.raises(ProviderUnusable, match="Authorization Violation"):
            new(f"{url}&credentials={files['forged']}")
        # It was there when the provider was made, and is gone when it connects again.
        provider = new(f"{url}&credentials={files['good']}")
        provider.close(1)
        files["good"].unlink()
        with pytest.raises((SendFailed, ProviderUnusable), match="No such file"):
            provider.open(context())


def test_rights(new: New) -> None:
    """The rights that the documentation names suffice; a missing one blocks, and is named."""
    enough = (
        '["app.>", "$JS.API.STREAM.INFO.ORDERS", "$JS.API.STREAM.MSG.GET.ORDERS",'
        ' "$JS.API.CONSUMER.*.ORDERS.>", "$JS.API.CONSUMER.CREATE.ORDERS", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.>"]'
    )
    users = "\n".join(
        [
            "{ user: all, password: p }",
            f'{{ user: enough, password: p, permissions: {{ publish: {enough}, subscribe: "_INBOX_MB.>" }} }}',
            '{ user: reader, password: p, permissions: { publish: "$JS.API.>", subscribe: "_INBOX.>" } }',
            '{ user: deaf, password: p, permissions: { publish: ">", subscribe: "nothing" } }',
            '{ user: mute, password: p, permissions: { publish: "app.>", subscribe: "_INBOX.>" } }',
        ]
    )
    with NatsServer(f"authorization {{ users: [ {users} ] }}") as server:
        login = {"user": "all", "pass": "p"}
        with Plain(server.port, **login) as client:
            client.make("ORDERS", "app.>")
            client.publish("app.orders", "somebody else's")
        place = f"127.0.0.1:{server.port}/ORDERS?prefix=app."
        provider = new(f"nats://enough:p@{place}&inbox_prefix=_INBOX_MB")
        provider.send(make_batch(1, 10))
        with pytest.raises(ProviderUnusable, match='violation for publish to "app.orders"; grant it to this user'):
            new(f"nats://reader:p@{place}").send(make_batch(11, 10))
        with pytest.raises(ProviderUnusable, match='violation for subscription to "_inbox.*; grant it'):
            new(f"nats://deaf:p@{place}")
        with pytest.raises(ProviderUnusable, match='violation for publish to "\\$js.api.stream.info.orders"; grant it'):
            new(f"nats://mute:p@{place}")
        with pytest.raises(ProviderUnusable, match="Authorization Violation") as refused:
            new(f"nats://enough:wrong-one@{place}")
        assert "wrong-one" not in str(refused.value)
        assert len(entries(server.port, "ORDERS", "app.", **login)) == 10


# ---- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def nats_tls(certificates: Certificates) -> Iterator[NatsServer]:
    """A NATS that asks for a client's certificate."""
    require_nats()
    files = {"cert_file": certificates.server, "key_file": certificates.server_key, "ca_file": certificates.authority}
    lines = "\n".join(f'{name}: "{path}"' for name, path in files.items())
    with NatsServer(f"tls {{ {lines}\nverify: true }}") as server:
        yield server


def test_tls_checks_both_sides(
    nats_tls: NatsServer, certificates: Certificates, new: New, caplog: pytest.LogCaptureFixture
) -> None:
    plain = (ProviderUnusable, "the server expects TLS; add tls=true")
    both_sides_are_checked(new, f"{nats_tls.url}/ORDERS?create=orders", certificates, caplog, plain=plain)


def test_nothing_is_said_to_a_server_without_tls(nats_server: NatsServer, new: New) -> None:
    """nats-py would send the password in the clear where the server does not ask for TLS."""
    with pytest.raises(ProviderUnusable, match="the server offers no TLS; enable it there"):
        new(f"nats://user:hush@127.0.0.1:{nats_server.port}/ORDERS?tls=true")


def test_who_begins_is_said_where_the_two_do_not_agree(
    nats_server: NatsServer, certificates: Certificates, new: New
) -> None:
    """As with ``handshake_first``, which the server waits for in silence."""
    with HttpServer(certificate=(str(certificates.server), str(certificates.server_key))) as waits:
        place = f"nats://127.0.0.1:{waits.port}/ORDERS?connect_timeout=300ms"
        with pytest.raises(SendFailed, match="does it begin with TLS[?] then add tls=true and tls_first=true"):
            new(place)
        with pytest.raises(SendFailed, match="does it begin with TLS[?] then add tls_first=true"):
            new(f"{place}&tls=true")
    with pytest.raises(SendFailed, match="does it speak before TLS begins[?] then leave out tls_first"):
        new(f"{nats_server.url}/ORDERS?tls=true&tls_first=true")
