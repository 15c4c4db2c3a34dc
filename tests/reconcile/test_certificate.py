"""Certificates are read and checked before they are used."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from mullama.errors import Invalid
from mullama.manifest.spec import Tls
from mullama.reconcile.certificate import load_certificate, stamps_of, untimely
from tests.certificates import Authority


def soon() -> float:
    """A time at which the certificates of this run are valid."""
    return time.time() + 60


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_a_good_certificate_shows_its_names_and_its_end(authority: Authority) -> None:
    cert, key = authority.issue("good")
    found = load_certificate(Tls(cert=cert, key=key), now=soon())
    assert found.names == ("localhost", "127.0.0.1")
    assert abs(found.expires - soon() - 30 * 86400) < 3600
    assert found.context.verify_mode is ssl.CERT_NONE
    assert untimely(found, found.expires + 1) is not None
    asking = load_certificate(Tls(cert=cert, key=key, client_ca=authority.cert), now=soon())
    assert asking.context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("expired", r"server.tls.cert: .*expired.pem expired on "),
        ("early", r"server.tls.cert: .*good.pem is valid from "),
        ("mismatched", r"server.tls.key: .*other.key is not the key of the certificate "),
        ("missing", r"server.tls: .*gone.pem cannot be used: no such file"),
        ("not-pem", r"server.tls.cert: .*text.pem has no complete certificate in PEM form"),
        ("half a certificate", r"server.tls.cert: .*half.pem has no complete certificate in PEM form"),
        ("half a key", r"server.tls.key: .*half.pem has no complete private key in PEM form"),
        ("damaged", r"server.tls: .*half.pem with .* cannot be used: "),
        ("passphrase", r"server.tls.key: .*locked.key has a passphrase"),
        ("no-authority", r"server.tls.client_ca: .*text.pem cannot be used"),
    ],
)
def test_a_bad_certificate_is_refused_with_its_file(change: str, message: str, authority: Authority) -> None:
    cert, key = authority.issue("good")
    text = str(Path(authority.folder) / "text.pem")
    Path(text).write_text("no certificate")
    now, ca = soon(), None
    if change == "expired":
        cert, key = authority.issue("expired", days=-1)
    elif change == "early":
        now -= 86400
    elif change == "mismatched":
        key = authority.issue("other")[1]
    elif change == "missing":
        cert = cert.replace("good", "gone")
    elif change == "not-pem":
        cert = text
    elif change in ("half a certificate", "half a key", "damaged"):
        half, whole = Path(authority.folder) / "half.pem", Path(key if change == "half a key" else cert).read_text()
        half.write_text(whole.replace("M", "N") if change == "damaged" else whole[: len(whole) // 2])
        cert, key = (cert, str(half)) if change == "half a key" else (str(half), key)
    elif change == "passphrase":
        locked = key.replace("good", "locked")
        command = ["openssl", "pkey", "-in", key, "-out", locked, "-aes256", "-passout", "pass:x"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        key = locked
    else:
        ca = text
    with pytest.raises(Invalid, match=message) as refused:
        load_certificate(Tls(cert=cert, key=key, client_ca=ca), now=now)
    assert refused.value.hint


def test_an_expired_certificate_can_be_used_where_any_time_is_accepted(authority: Authority) -> None:
    cert, key = authority.issue("expired", days=-1)
    assert load_certificate(Tls(cert=cert, key=key), now=soon(), any_time=True).expires < soon()


def test_the_stamps_change_with_the_files(authority: Authority) -> None:
    cert, key = authority.issue("stamped")
    settings = Tls(cert=cert, key=key)
    before = stamps_of(settings)
    assert stamps_of(settings) == before
    authority.issue("stamped")
    changed = stamps_of(settings)
    assert changed != before
    os.unlink(key)
    assert stamps_of(settings)[1] is None
