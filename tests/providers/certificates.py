"""Certificates for servers of the tests, made by OpenSSL."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, certificates that it vouches for with their keys, an authority that vouches for nobody.

    The server's is for 127.0.0.1; the client's is for the name ``mb``.
    """

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path


def make_certificates(folder: Path) -> Certificates:
    """Made in ``folder``, readable by everybody but for the client's key. Skips the test where there is no OpenSSL."""
    if shutil.which("openssl") is None:
        pytest.skip("the tests with TLS need openssl; run: apt-get install -y openssl")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("authority", "stranger"):
        # From 3.13 on Python asks of an authority that it says what its key is for.
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl(*new, "-x509", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", *usage)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, subject in (("server", "server"), ("client", "mb")):
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names"),
            *("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"),
        )
    (folder / "client.key").chmod(0o600)
    names = ("authority.pem", "server.pem", "server.key", "client.pem", "client.key", "stranger.pem")
    return Certificates(*(folder / name for name in names))
