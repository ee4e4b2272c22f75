"""What can go wrong on the device itself."""

from __future__ import annotations

from splitpoint.codec import SplitpointError


class AgentError(SplitpointError):
    """The agent cannot start or was used wrongly."""


class SourceError(SplitpointError):
    """What frames are to come from is not there, or cannot be opened."""


class CacheError(SplitpointError):
    """The artifact cache cannot be written, or what was fetched is not what was asked for."""


class FrameLostError(SplitpointError):
    """Something that nobody expected ended one frame on the device: a defect, or no memory left."""
