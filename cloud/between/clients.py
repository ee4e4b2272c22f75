"""Clients and refusals in messages: what limits need to know of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import grpc

from ..access.access import AccessError
from ..access.refusals import Refusal
from ..access.tokens import Client
from .messages import MessageError

_LIMITS = ("max_requests_per_s", "max_bytes_in_flight")


def told_client(client: Client) -> dict[str, Any]:
    """For `client_of`. Which models it may use is no limit of what it takes."""
    limits = {name: getattr(client, name) for name in _LIMITS}
    return {name: None if math.isinf(limit) else limit for name, limit in limits.items()} | {
        "name": client.name, "max_streams": client.max_streams, "is_address": client.is_address,
    }  # fmt: skip


def client_of(told: Mapping[str, Any]) -> Client:
    """Raises `MessageError` for what `told_client` does not give."""
    try:
        requests, held = (math.inf if told[n] is None else float(told[n]) for n in _LIMITS)
        return Client(
            name=str(told["name"]),
            max_streams=None if told["max_streams"] is None else int(told["max_streams"]),
            is_address=bool(told["is_address"]),
            max_requests_per_s=requests,
            max_bytes_in_flight=held,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError("a client's description is damaged") from error


def told_refusal(error: AccessError) -> dict[str, str]:
    """For `refusal_of`."""
    return {"status": error.status.name, "reason": error.reason.value, "what": error.what}


def refusal_of(told: Mapping[str, str]) -> AccessError:
    """What was refused in the engine's process."""
    status, reason = grpc.StatusCode[told["status"]], Refusal(told["reason"])
    return AccessError(status, reason, told["what"])
