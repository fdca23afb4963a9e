"""What must hold for a provider whose server shows a certificate and asks for one."""

from __future__ import annotations

import logging

import pytest

from mbframework.errors import ProviderUnusable, SendFailed
from tests.providers.batches import make_batch
from tests.providers.certificates import Certificates
from tests.providers.made import New


def both_sides_are_checked(
    new: New,
    url: str,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    *,
    plain: tuple[type[Exception], str] = (SendFailed, "does it expect TLS"),
    bare: str = "",
) -> None:
    """3,000 messages come through; a strange authority, no certificate, and no TLS do not.

    :param url: with a query; the options of TLS are added.
    :param plain: how the provider fails that says nothing of TLS.
    :param bare: the URL of a port that knows no TLS, where that fails as an outage does.
    """
    ours = f"tls_cert={certificates.client}&tls_key={certificates.client_key}"
    provider = new(f"{url}&tls=true&tls_ca={certificates.authority}&{ours}")
    provider.send(make_batch(1, 3000, size=1000))
    assert provider.describe()["security"] == "tls on"
    with pytest.raises(ProviderUnusable, match="certificate was refused: .*; check tls_ca"):
        new(f"{url}&tls=true&tls_ca={certificates.stranger}&{ours}")
    with pytest.raises((SendFailed, ProviderUnusable)):
        new(f"{url}&tls=true&tls_ca={certificates.authority}")
    kind, words = plain
    with pytest.raises(kind, match=words):
        new(url)
    if bare:
        with pytest.raises(SendFailed, match="is it a port without TLS[?] .* leave out tls=true, or the s of .*s:"):
            new(f"{bare}&tls=true&tls_ca={certificates.authority}")
    caplog.set_level(logging.WARNING)
    assert new(f"{url}&tls=true&tls_verify=false&{ours}").describe()["security"] == "tls on, not verified"
    assert "certificate is not checked" in caplog.text
