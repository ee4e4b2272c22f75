"""How a device knows its workers, and proves to them who it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from splitpoint.proto.address import is_loopback
from splitpoint.proto.limits import TOKEN_KEY, TOKEN_SCHEME
from splitpoint.proto.proxy import proxy_of
from splitpoint.proto.tls import read_ca, read_pair

from ..errors import AgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Files in PEM, and a token or a file that holds nothing else.

    With `tls_ca` connections are encrypted, and only a worker whose certificate it signed, for the
    very name or address that is called, is talked to. `tls_cert` and `tls_key` prove who this
    device is, and so does the token, which is sent without TLS only to this machine itself, unless
    `insecure` says otherwise. Raises `AgentError` for what does not go together.
    """

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, other = ("cert", "key") if self.tls_key is None else ("key", "cert")
            raise AgentError(f"--tls-{given} without --tls-{other}", "give both")
        if self.tls_cert is not None and self.tls_ca is None:
            raise AgentError(
                "--tls-cert without --tls-ca", "give the CA that signed the worker's certificate"
            )
        _ = self.metadata  # a token that cannot be sent is refused here

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call. Raises `AgentError` for a token that cannot be read."""
        token = _sendable(self.token) if self.token_file is None else read_token(self.token_file)
        return ((TOKEN_KEY, f"{TOKEN_SCHEME} {token}"),) if token else ()

    def contents(self) -> tuple[bytes | None, ...]:
        """What stands in the files now, None for one that cannot be read: renewed ones differ."""
        files = (self.tls_ca, self.tls_cert, self.tls_key, self.token_file)
        return tuple(_content(path) for path in files if path is not None)

    def open_channel(self, server: str, options: Sequence[tuple[str, int]]) -> grpc.aio.Channel:
        """A channel to `server`; files are read anew for each, so that new certificates count.

        Through a proxy that the environment names, but to this machine itself always directly.
        Certificates may become valid later: a device without a battery for its clock boots in the
        past. Raises `TlsError` for files that will not do, and `AgentError` for a token that others
        could read on its way.
        """
        if proxy_of(server) is None:
            options = [*options, ("grpc.enable_http_proxy", 0)]
        if self.tls_ca is None:
            if self.metadata and not (self.insecure or is_loopback(server)):
                raise AgentError(
                    f"the token would go to {server} without TLS",
                    "give --tls-ca, or say --insecure",
                )
            return grpc.aio.insecure_channel(server, options)
        ca = read_ca(self.tls_ca, early=True)
        chain = key = None
        if self.tls_cert is not None and self.tls_key is not None:
            chain, key = read_pair(self.tls_cert, self.tls_key, early=True)
        credentials = grpc.ssl_channel_credentials(ca, key, chain)
        return grpc.aio.secure_channel(server, credentials, options)


def read_token(path: Path) -> str:
    """The token in a file that holds nothing else; `AgentError` for none that can be sent."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise AgentError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise AgentError(f"{path} holds no token") from error
    if not token:
        raise AgentError(f"{path} is empty", "it is to hold the token and nothing else")
    return _sendable(token)


def _sendable(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise AgentError("the token has characters other than printable ASCII without spaces")
    return token


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None  # what is wrong is said where it is used
