"""What can go wrong between a model and a bundle."""

from __future__ import annotations

from splitpoint.codec import SplitpointError


class ModelError(SplitpointError):
    """The model that was named cannot be found, built or given its weights."""


class CaptureError(SplitpointError):
    """The model's graph cannot be captured or cut."""


class BundleError(SplitpointError):
    """A bundle is missing, damaged, of another version, or does not hold what was asked for."""


class SegmentError(SplitpointError):
    """A segment failed while it ran."""


class LinkError(SplitpointError):
    """A link description or trace cannot be read."""


class PictureError(SplitpointError):
    """A file is no picture that can be decoded."""


class InputError(SplitpointError):
    """A file holds no arrays, or not those that the model takes."""


class CalibrationError(SplitpointError):
    """The inputs or labels that were given to calibrate with do not do."""


class LearnError(SplitpointError):
    """A learned codec cannot be trained here, or with these pictures, or gains nothing."""


class DeviceError(SplitpointError):
    """A device that was named is not known, or not there."""


class PlanError(SplitpointError):
    """The split or codec that was asked for does not exist, or no plan fits what was asked for."""


class TaskError(SplitpointError):
    """A task is malformed, or the model's outputs are not those that its head reads.

    Or the head is a user's function that nobody has allowed here, or that fails.
    """
