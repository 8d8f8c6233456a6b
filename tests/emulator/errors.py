"""pycuda's exceptions: `pycuda.driver.Error` and what derives from it."""

__all__ = ["Error", "LaunchError", "LogicError", "MemoryError", "RuntimeError"]


class Error(Exception):
    """Base of all of them."""


class MemoryError(Error):
    """The device or the host has no memory left."""


class LogicError(Error):
    """A call that cannot be: an invalid value, handle or context."""


class LaunchError(Error):
    """What ran on the device failed."""


class RuntimeError(Error):
    """There is no device, or nothing to run on it."""


for _error in (Error, MemoryError, LogicError, LaunchError, RuntimeError):
    _error.__module__ = "pycuda._driver"
