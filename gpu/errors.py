"""The errors of this room, which knows nobody above it."""

__all__ = ["DeviceError", "PlanError"]


class DeviceError(RuntimeError):
    """No GPU can be used: the message says what is missing and how to install it."""


class PlanError(ValueError):
    """A layer plan or an option that the kernels do not take; the message names it."""
