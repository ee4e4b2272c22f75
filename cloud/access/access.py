"""Who is calling: from a token, else from a certificate, else from where it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
from splitpoint.codec import SplitpointError
from splitpoint.proto.address import host_of, is_loopback
from splitpoint.proto.limits import TOKEN_KEY, TOKEN_SCHEME

from .refusals import Refusal
from .tokens import MOST_NAME, Client, Tokens

_COMMON_NAME = "x509_common_name"  # gRPC's name for it in a call's context


class AccessError(SplitpointError):
    """A caller that is not let in: the status it gets, and what it is counted as."""

    def __init__(self, status: grpc.StatusCode, reason: Refusal, what: str) -> None:
        super().__init__(what)
        self.status, self.reason = status, reason


class Access:
    """Decides who a caller is. With `tokens`, only clients that stand there are let in.

    `token_in_clear` lets tokens come over connections that others could listen to.
    """

    def __init__(self, tokens: Tokens | None, *, tls: bool, token_in_clear: bool = False) -> None:
        self._tokens, self._tls, self._token_in_clear = tokens, tls, token_in_clear

    def client(
        self,
        metadata: Iterable[tuple[str, str | bytes]],
        auth_context: Mapping[str, Iterable[bytes]],
        peer: str,
    ) -> Client:
        """The caller. Raises `AccessError` (UNAUTHENTICATED) for one that is not let in."""
        token = _token(metadata)
        if token is not None and not (self._tls or self._token_in_clear or is_loopback(peer)):
            # Whether it is right or not: it is known to the network now.
            raise AccessError(
                grpc.StatusCode.UNAUTHENTICATED,
                Refusal.TOKEN_IN_CLEAR,
                "a token came over a connection without TLS; make a new token and use TLS",
            )
        name = _common_name(auth_context)
        if self._tokens is None:
            if name:
                return Client(name=name)
            return Client(name=host_of(peer) or peer, is_address=True)
        if token is None:
            client = self._tokens.by_certificate(name) if name else None
            if client is None:
                raise AccessError(
                    grpc.StatusCode.UNAUTHENTICATED,
                    Refusal.NO_TOKEN,
                    "a token is needed; give --token-file or SPLITPOINT_TOKEN",
                )
            return client
        client = self._tokens.by_token(token)
        if client is None:
            raise AccessError(
                grpc.StatusCode.UNAUTHENTICATED,
                Refusal.WRONG_TOKEN,
                "the token is none of this worker's; check --token-file",
            )
        return client


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> bytes | None:
    """What the caller gives as its token; two of them are as good as a wrong one."""
    values = [value for key, value in metadata if key == TOKEN_KEY]
    if not values:
        return None
    value = values[0] if len(values) == 1 else b""
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    scheme, _, token = data.partition(b" ")
    return token if scheme.lower() == TOKEN_SCHEME.lower().encode() else b""


def _common_name(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    names = list(auth_context.get(_COMMON_NAME, ()))
    name = names[0].decode("utf-8", "replace") if len(names) == 1 else ""
    # It ends up in logs, and whoever signed it may have been careless.
    return "".join(char if char.isprintable() else "?" for char in name)[:MOST_NAME]
