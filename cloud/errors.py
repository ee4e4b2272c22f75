"""What can keep a worker from serving."""

from __future__ import annotations

from splitpoint.codec import SplitpointError


class Interrupted(SplitpointError):
    """A model is not loaded or measured to the end: the worker stops, or frames wait."""


class ServeError(SplitpointError):
    """The worker cannot start: no such device, the port is in use, the model does not fit."""


class DeviceLost(ServeError):
    """A device fails for good, or what it was given does not come back.

    A process that ends for that does so at once: to take apart what it has there may take for ever.
    """


class NotCompiled(SplitpointError):
    """What a compiler makes of a model is not used here: it is wrong, fails, or takes too long."""
