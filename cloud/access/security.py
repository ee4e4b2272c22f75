"""How a worker proves who it is, and whom it lets in: options, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import grpc
from splitpoint.proto.address import is_loopback, split_address
from splitpoint.proto.tls import read_ca, read_pair

from ..errors import ServeError
from .access import Access
from .tokens import Tokens, read_tokens

_ANY = "latin-1"  # any bytes may stand around what is PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Files in PEM and TOML; see docs/guides/secure.md.

    `client_ca` demands a certificate of every client, `tokens` that it stands in that file.
    `insecure` allows what others on the network could listen to or use. Raises `ServeError` for
    options that do not go together.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, other = ("cert", "key") if self.tls_key is None else ("key", "cert")
            raise ServeError(f"--tls-{given} without --tls-{other}", "give both")
        if self.client_ca is not None and self.tls_cert is None:
            raise ServeError("--client-ca without --tls-cert", "certificates need TLS: give both")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.tls_cert is not None

    def check_listen(self, listen: str) -> None:
        """Raises `ServeError` where others could reach `listen` and nothing would keep them out.

        `AddressError` for what is no address: nobody is told about TLS who left out the host.
        """
        split_address(listen)
        if self.insecure or is_loopback(listen):
            return
        lacks = []
        if not self.tls:
            lacks.append("without TLS")
        if self.client_ca is None and self.tokens is None:
            lacks.append("for clients that nobody knows")
        if lacks:
            raise ServeError(
                f"cannot listen on {listen}, where others come by, {' and '.join(lacks)}",
                "give --tls-cert and --tls-key with --client-ca or --tokens, or say --insecure",
            )

    def read(self) -> Proofs:
        """What the files hold. Raises `TlsError` or `ServeError` for one that will not do."""
        pair = ca = tokens = None
        if self.tls_cert is not None and self.tls_key is not None:
            chain, key = read_pair(self.tls_cert, self.tls_key)
            pair = chain.decode(_ANY), key.decode(_ANY)
        if self.client_ca is not None:
            ca = read_ca(self.client_ca).decode(_ANY)
        if self.tokens is not None:
            tokens = str(self.tokens), read_tokens(self.tokens)
        return Proofs(pair=pair, client_ca=ca, tokens=tokens, insecure=self.insecure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """What a worker goes by from its start to its end, whatever becomes of the files.

    `pair` is its certificate and the key, `tokens` the path and the text of their file.
    """

    pair: tuple[str, str] | None = field(repr=False)
    client_ca: str | None
    tokens: tuple[str, str] | None
    insecure: bool

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """What gRPC needs for TLS, None without."""
        if self.pair is None:
            return None
        chain, key = (part.encode(_ANY) for part in self.pair)
        ca = None if self.client_ca is None else self.client_ca.encode(_ANY)
        return grpc.ssl_server_credentials([(key, chain)], ca, ca is not None)

    def access(self) -> Access:
        """Who is let in. Raises `ServeError` for tokens that cannot be used."""
        tokens = None
        if self.tokens is not None:
            path, text = self.tokens
            tokens = Tokens.parse(text, Path(path))
            if tokens.knows_certificates and self.client_ca is None:
                raise ServeError(
                    f"{path} has a client without token_sha256",
                    "give it one, or --client-ca, so that a certificate proves its name",
                )
        return Access(tokens, tls=self.pair is not None, token_in_clear=self.insecure)
