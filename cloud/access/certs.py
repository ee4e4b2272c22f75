"""A small certificate authority: enough for tests and for fleets that fit into one folder."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import ServeError

DAYS, CA_DAYS = 730, 3650
# Devices without a battery for their clock wake up in the past.
_EARLIER = timedelta(days=1)
_DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
CA, SERVER = "ca", "server"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(
    folder: Path,
    *,
    servers: Sequence[str] = (),
    devices: Sequence[str] = (),
    days: int = DAYS,
    now: datetime | None = None,
) -> list[Path]:
    """Writes NAME.pem and NAME.key (mode 0600) into `folder`, and returns what it wrote.

    `servers` are the names and addresses of one worker, whose files are called `server`; `devices`
    are names, one certificate each, which the worker reads from the subject's CN. All are signed by
    the authority in `folder`, which is made where there is none. Nothing is overwritten: raises
    `ServeError` before anything is written.
    """
    now = now or datetime.now(timezone.utc)
    if not servers and not devices:
        raise ServeError("no certificate to make", "give --server NAME or --device NAME")
    for name in servers:
        if _address(name) is None and not _HOST.fullmatch(name):
            raise ServeError(f"the server {name!r} is neither a name nor an address")
    for name in devices:
        if not _DEVICE_NAME.fullmatch(name) or name in (CA, SERVER):
            raise ServeError(
                f"the device {name[:80]!r} cannot be called so",
                "take up to 64 letters, digits, '.', '_' and '-', but not ca or server",
            )
    twice = [name for name in devices if devices.count(name) > 1]
    if twice:
        raise ServeError(f"the device {twice[0]} is named twice", "name each once")
    names = [SERVER, *devices] if servers else list(devices)
    for path in (path for name in names for path in _paths(folder, name)):
        if path.exists():
            raise ServeError(f"{path} is there already", "remove it first, or choose another --out")
    authority = _read_authority(folder, now)
    wanted = {} if authority is not None else {CA: _new_authority(now)}
    authority = authority or wanted[CA]
    ends = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    if servers:
        wanted[SERVER] = _issue(authority, servers[0], now, ends, servers=servers)
    for name in devices:
        wanted[name] = _issue(authority, name, now, ends)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, pair in wanted.items() for path in _write(folder, name, pair)]


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}.key"


def _read_authority(folder: Path, now: datetime) -> _Pair | None:
    certificate_path, key_path = _paths(folder, CA)
    there = [path for path in (certificate_path, key_path) if path.exists()]
    if not there:
        return None
    if len(there) == 1:
        raise ServeError(
            f"{there[0]} is there without the other half of the authority",
            "put ca.pem and ca.key there, or choose another --out",
        )
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    except (ValueError, TypeError) as error:  # TypeError: the key is encrypted
        raise ServeError(f"{folder} holds no authority that can be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise ServeError(f"{key_path} is not the key of {certificate_path}")
    if certificate.not_valid_after_utc <= now:
        raise ServeError(
            f"the authority in {folder} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            "make a new one in another --out",
        )
    return _Pair(certificate, key)


def _new_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Two authorities with one name, as in two test folders, would be taken for each other.
    name = _subject(f"splitpoint test CA {serial & 0xFFFFFFFF:08x}")
    builder = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=CA_DAYS))
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _issue(
    authority: _Pair, name: str, now: datetime, ends: datetime, *, servers: Sequence[str] = ()
) -> _Pair:
    """A certificate for a worker with the names `servers`, or for a device."""
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if servers else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = authority.certificate
    builder = (
        _builder(_subject(name[:64]), issuer.subject, key.public_key(), now, ends)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        # One made for a device does not let it pose as a worker, nor the other way.
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if servers:
        alternatives = x509.SubjectAlternativeName([_alternative(server) for server in servers])
        builder = builder.add_extension(alternatives, critical=False)
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now - _EARLIER)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def _alternative(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _write(folder: Path, name: str, pair: _Pair) -> tuple[Path, Path]:
    certificate_path, key_path = _paths(folder, name)
    secret = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _create(key_path, secret, 0o600)
    _create(certificate_path, pair.certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate_path, key_path


def _create(path: Path, data: bytes, mode: int) -> None:
    """A new file, never for a moment more readable than `mode`."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(data)
