"""Certificates for tests and small fleets: what they hold, and that nothing is overwritten."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from splitpoint.cloud.access.certs import make_certificates
from splitpoint.cloud.errors import ServeError


def read(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def common_name(certificate: x509.Certificate) -> str:
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def test_what_they_hold(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "certs"
    servers = ["worker.example", "10.0.0.1", "[2001:db8::1]", "*.lan"]
    written = make_certificates(folder, servers=servers, devices=["cam-1", "cam-2"])
    names = ["ca", "server", "cam-1", "cam-2"]
    assert written == [folder / f"{name}.{end}" for name in names for end in ("pem", "key")]
    assert sorted(folder.iterdir()) == sorted(written)
    for name in names:
        assert (folder / f"{name}.key").stat().st_mode & 0o777 == 0o600
        assert read(folder, name).issuer == read(folder, "ca").subject
        read(folder, name).verify_directly_issued_by(read(folder, "ca"))
    alternatives = read(folder, "server").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert alternatives.value.get_values_for_type(x509.DNSName) == ["worker.example", "*.lan"]
    assert alternatives.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("2001:db8::1"),
    ]  # fmt: skip
    assert common_name(read(folder, "cam-1")) == "cam-1"
    for name, purpose in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH), ("cam-1", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):  # fmt: skip
        usage = read(folder, name).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert list(usage.value) == [purpose]


def test_devices_are_added_later(tmp_path: Path) -> None:
    make_certificates(tmp_path, servers=["localhost"], devices=["a"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    written = make_certificates(tmp_path, devices=["b"])
    assert [path.name for path in written] == ["b.pem", "b.key"]
    read(tmp_path, "b").verify_directly_issued_by(read(tmp_path, "ca"))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make_certificates(tmp_path, servers=["localhost"], devices=["a"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for fields in ({"servers": ["other"]}, {"devices": ["b", "a"]}):
        with pytest.raises(ServeError, match="is there already"):
            make_certificates(tmp_path, **fields)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_none_outlives_its_authority(tmp_path: Path) -> None:
    make_certificates(tmp_path, devices=["a"], days=30_000)
    assert read(tmp_path, "a").not_valid_after_utc == read(tmp_path, "ca").not_valid_after_utc
    with pytest.raises(ServeError, match="expired on"):
        make_certificates(
            tmp_path, devices=["b"], now=datetime.now(timezone.utc) + timedelta(days=4000)
        )


def test_what_cannot_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    for fields, words in (
        ({}, "no certificate to make"),
        ({"servers": ["a b"]}, "'a b' is neither a name nor an address"),
        ({"servers": ["localhost:7070"]}, "neither a name nor an address"),
        ({"devices": ["../evil"]}, "cannot be called so"),
        ({"devices": ["ca"]}, "cannot be called so"),
        ({"devices": ["server"]}, "cannot be called so"),
        ({"devices": ["x" * 65]}, "cannot be called so"),
        ({"devices": ["a", "a"]}, "named twice"),
    ):
        with pytest.raises(ServeError, match=words) as caught:
            make_certificates(folder, **fields)
        assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_an_authority_that_cannot_be_used(tmp_path: Path) -> None:
    make_certificates(tmp_path, devices=["a"])
    make_certificates(tmp_path / "other", devices=["a"])
    key = (tmp_path / "ca.key").read_bytes()
    for content, words in (
        ((tmp_path / "other" / "ca.key").read_bytes(), "is not the key of"),
        (b"hello", "can be read"),
    ):
        (tmp_path / "ca.key").write_bytes(content)
        with pytest.raises(ServeError, match=words):
            make_certificates(tmp_path, devices=["b"])
    (tmp_path / "ca.key").unlink()
    with pytest.raises(ServeError, match="without the other half"):
        make_certificates(tmp_path, devices=["b"])
    assert not (tmp_path / "b.pem").exists()
    (tmp_path / "ca.key").write_bytes(key)
    make_certificates(tmp_path, devices=["b"])
