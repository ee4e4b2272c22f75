"""Limits of clients over all ingest processes: who has how many streams, frames and bytes."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

from ..access.access import AccessError
from ..access.quotas import ClientUse, ClientUses, Places
from ..access.tokens import Client
from ..between.clients import client_of, told_refusal
from ..between.messages import MessageError


class Desk:
    """One for all: `kinds` are the places that there are, by what they are called."""

    def __init__(self, uses: ClientUses, kinds: dict[str, Places]) -> None:
        self._uses, self.kinds = uses, kinds
        # Those with a name of their own; others have no limits but those of places.
        self.named: dict[str, ClientUse] = {}
        self._streams: Counter[str] = Counter()

    def take(self, kind: str, client: Client, stack: ExitStack) -> None:
        """A place until `stack` is closed; raises `AccessError` where none is left."""
        places = self.kinds[kind]
        places.take(client)
        stack.callback(places.leave, client)
        if not client.is_address:
            self.named[client.name] = stack.enter_context(self._uses.of(client))
            self._streams[client.name] += 1
            stack.callback(self._left, client.name)

    def _left(self, name: str) -> None:
        self._streams[name] -= 1
        if not self._streams[name]:
            del self._streams[name], self.named[name]


class PlacesOfOne:
    """Those that one ingest process has; all are free again when that has ended."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._taken: dict[int, ExitStack] = {}

    def take(self, told: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question for a place. Raises `MessageError` for a damaged one."""
        number, kind, client = told.get("number"), told.get("what"), told.get("client")
        if not (isinstance(number, int) and isinstance(kind, str) and isinstance(client, dict)):
            raise MessageError("a question for a place is damaged")
        if number in self._taken or kind not in self._desk.kinds:
            raise MessageError(f"there is no place {number} of {kind[:20]}")
        stack = ExitStack()
        try:
            self._desk.take(kind, client_of(client), stack)
        except AccessError as error:
            return {"number": number, "refused": told_refusal(error)}
        self._taken[number] = stack
        return {"number": number, "refused": None}

    def leave(self, told: dict[str, Any]) -> None:
        """A place is free again; one that was refused is no news."""
        stack = self._taken.pop(told.get("number", 0), None)
        if stack is not None:
            stack.close()

    def leave_all(self) -> None:
        """The process has ended."""
        for stack in self._taken.values():
            stack.close()
        self._taken.clear()
