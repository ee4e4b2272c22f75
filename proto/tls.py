"""Certificates and keys from files, checked before anything leans on them.

gRPC takes whatever bytes it is given, and fails at the first handshake without saying why. Both
ends therefore look first: that a file is there, that a key belongs to its certificate, and that
the certificate is valid today.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from splitpoint.codec import SplitpointError

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# Tags of DER (X.690): a sequence, a field that version 1 lacks, and the two forms of a time.
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class TlsError(SplitpointError):
    """A certificate or key that is not there, cannot be used, or does not belong to the other."""


def read_pair(
    cert: Path, key: Path, now: datetime | None = None, *, early: bool = False
) -> tuple[bytes, bytes]:
    """The certificate (its chain behind it) and its key, in PEM.

    Raises `TlsError` where one is missing, they do not belong together, the key is encrypted, or
    the certificate is not valid at `now`; with `early` it may become so later. Of the chain nothing
    is asked: authorities sign each other, and a path over one that has expired need not be the only
    one.
    """
    chain, secret = _read(cert), _read(key)
    first, *_ = _certificates(cert, chain)
    _check_dates(cert, first, now, early=early)

    def no_password() -> str:
        # Without this, OpenSSL would ask for one on the terminal.
        raise TlsError(f"the key {key} is encrypted", "give it without a passphrase, mode 0600")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            raise TlsError(
                f"the key {key} is not that of {cert}", "give the two that were made together"
            ) from error
        raise TlsError(f"{cert} and {key} are no certificate and key in PEM") from error
    return chain, secret


def read_ca(path: Path, *, early: bool = False) -> bytes:
    """The certificates of authorities in a file that can be used now, in PEM.

    The bundles of systems hold some that have expired: those are left out. With `early` they may
    become valid later. Raises `TlsError`, with what is wrong with the first of them, where none is
    left.
    """
    usable, refused = [], []
    for certificate in _certificates(path, _read(path)):
        try:
            _check_dates(path, certificate, early=early)
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
        except TlsError as error:
            refused.append(error)
        except ssl.SSLError as error:
            wrong = TlsError(f"{path} holds no certificate of an authority")
            wrong.__cause__ = error
            refused.append(wrong)
        else:
            usable.append(certificate)
    if not usable:
        raise refused[0]
    return "".join(f"{certificate}\n" for certificate in usable).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read {path}: {error.strerror or error}") from error


def _certificates(path: Path, pem: bytes) -> list[str]:
    """The PEM of each certificate in a file's content, at least one."""
    _, *parts = pem.decode("ascii", "replace").split(_BEGIN)
    if not parts:
        raise TlsError(f"{path} holds no certificate in PEM")
    return [f"{_BEGIN}{part.partition(_END)[0]}{_END}" for part in parts]


def _check_dates(path: Path, certificate: str, now: datetime | None = None, *, early: bool) -> None:
    now = now or datetime.now(timezone.utc)
    try:
        begins, ends = _validity(ssl.PEM_cert_to_DER_cert(certificate))
    except (ValueError, IndexError) as error:
        raise TlsError(f"{path} holds a damaged certificate") from error
    if now > ends:
        raise TlsError(f"a certificate in {path} expired on {ends:%Y-%m-%d}", "make a new one")
    if now < begins and not early:
        raise TlsError(
            f"a certificate in {path} is valid from {begins:%Y-%m-%d %H:%M} UTC on",
            "is this machine's clock right?",
        )


def _validity(der: bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate holds (RFC 5280, 4.1).

    The standard library tells that of a certificate only after a handshake, and a device should
    not need a package for it: (version), serial number, algorithm, issuer, then the validity.
    """
    (_, certificate), *_ = _fields(der)
    (_, to_be_signed), *_ = _fields(certificate)
    fields = list(_fields(to_be_signed))
    tag, validity = fields[4 if fields[0][0] == _VERSION else 3]
    if tag != _SEQUENCE:
        raise ValueError("no validity where it should be")
    begins, ends = [_time(tag, value) for tag, value in _fields(validity)]
    return begins, ends


def _time(tag: int, value: bytes) -> datetime:
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("a time in another form")
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _fields(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The (tag, content) of each element of a DER sequence's content."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            digits = size & 0x7F
            size = int.from_bytes(der[at : at + digits], "big")
            at += digits
        if at + size > len(der):
            raise ValueError("an element is longer than what holds it")
        yield tag, der[at : at + size]
        at += size
