"""Files of certificates and keys: what is wrong with them is said before anything uses them."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.proto.tls import TlsError, _certificates, _validity, read_ca, read_pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certificates(tmp_path, servers=["localhost"], devices=["a"])
    return tmp_path


def test_a_pair_and_an_authority(folder: Path) -> None:
    chain, key = read_pair(folder / "server.pem", folder / "server.key")
    assert chain == (folder / "server.pem").read_bytes()
    assert key == (folder / "server.key").read_bytes()
    assert read_ca(folder / "ca.pem") == (folder / "ca.pem").read_bytes()


def test_dates_are_those_of_the_certificate(folder: Path) -> None:
    """Also beyond 2049, from which on a time is written in another form."""
    make_certificates(
        folder / "late",
        devices=["b"],
        now=datetime(2048, 6, 1, tzinfo=timezone.utc),
    )
    for path in [*folder.glob("*.pem"), *folder.glob("late/*.pem")]:
        known = x509.load_pem_x509_certificate(path.read_bytes())
        (certificate,) = _certificates(path, path.read_bytes())
        der = ssl.PEM_cert_to_DER_cert(certificate)
        assert _validity(der) == (known.not_valid_before_utc, known.not_valid_after_utc)


def test_what_is_wrong(folder: Path) -> None:
    now = datetime.now(timezone.utc)
    (folder / "text.pem").write_text("hello")
    pem = (folder / "a.pem").read_text()
    (folder / "cut.pem").write_text(pem[:200] + pem[-60:])
    for cert, key, at, words in (
        ("nothing.pem", "a.key", None, "cannot read .*nothing.pem: No such file"),
        ("a.pem", "nothing.key", None, "cannot read .*nothing.key: No such file"),
        ("a.pem", "server.key", None, "server.key is not that of .*a.pem"),
        ("a.pem", "a.pem", None, "no certificate and key in PEM"),
        ("text.pem", "a.key", None, "holds no certificate in PEM"),
        ("cut.pem", "a.key", None, "damaged certificate"),
        ("a.pem", "a.key", now + timedelta(days=4000), "a.pem expired on "),
        ("a.pem", "a.key", now - timedelta(days=2), "is this machine's clock right"),
    ):
        with pytest.raises(TlsError, match=words) as caught:
            read_pair(folder / cert, folder / key, at)
        assert "\n" not in str(caught.value)
    for ca, words in (("text.pem", "no certificate"), ("cut.pem", "damaged"), ("no", "No such")):
        with pytest.raises(TlsError, match=words):
            read_ca(folder / ca)


def test_what_cannot_be_used_in_a_bundle_of_authorities_is_left_out(folder: Path) -> None:
    """Those of systems hold roots that have expired, and must not keep a device from connecting."""
    now = datetime.now(timezone.utc)
    make_certificates(folder / "old", servers=["x"], now=now - timedelta(days=4000))
    make_certificates(folder / "early", servers=["x"], now=now + timedelta(days=4000))
    good, old, early = (folder / name / "ca.pem" for name in (".", "old", "early"))
    damaged = good.read_bytes().replace(b"MII", b"AAA", 1)
    bundle = folder / "bundle.pem"
    for parts in ((old, good), (good, old, early), (early, good)):
        bundle.write_bytes(b"# comment\n".join(part.read_bytes() for part in parts) + damaged)
        assert read_ca(bundle) == good.read_bytes()
    bundle.write_bytes(good.read_bytes() * 2)
    assert read_ca(bundle) == good.read_bytes() * 2
    for parts, words in (((old, early), "expired on"), ((early, old), "is valid from")):
        bundle.write_bytes(b"".join(part.read_bytes() for part in parts))
        with pytest.raises(TlsError, match=words):
            read_ca(bundle)


def test_a_chain_may_hold_an_authority_that_has_expired(folder: Path) -> None:
    """As long as the certificate itself is valid: there may be another path to trust in it."""
    make_certificates(
        folder / "old", servers=["x"], now=datetime.now(timezone.utc) - timedelta(days=4000)
    )
    old, own = (folder / "old" / "ca.pem").read_bytes(), (folder / "server.pem").read_bytes()
    (folder / "chain.pem").write_bytes(own + old)
    assert read_pair(folder / "chain.pem", folder / "server.key")[0] == own + old


def test_an_encrypted_key_is_refused_and_nobody_asked(folder: Path) -> None:
    key = serialization.load_pem_private_key((folder / "a.key").read_bytes(), None)
    (folder / "a.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TlsError, match="is encrypted"):
        read_pair(folder / "a.pem", folder / "a.key")


def test_cut_certificates_are_errors(folder: Path) -> None:
    (certificate,) = _certificates(folder / "a.pem", (folder / "a.pem").read_bytes())
    der = ssl.PEM_cert_to_DER_cert(certificate)
    for size in range(len(der)):
        with pytest.raises((ValueError, IndexError)):
            _validity(der[:size])
