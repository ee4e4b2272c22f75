"""What can go wrong on the device itself."""

from __future__ import annotations

from splitpoint.codec import SplitpointError


class AgentError(SplitpointError):
    """The agent cannot start or was used wrongly."""


class CacheError(SplitpointError):
    """The artifact cache cannot be written, or what was fetched is not what was asked for."""
