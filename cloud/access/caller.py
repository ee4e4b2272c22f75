"""Who sends frames, as far as their shares and turns go."""

from __future__ import annotations

from dataclasses import dataclass

from .tokens import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One connection of a client. A client without a name is called by its address."""

    client: Client
    connection: str

    @property
    def share(self) -> str:
        """Whose part of a device its frames take: who shares an address need not share that."""
        return self.connection if self.client.is_address else self.client.name
