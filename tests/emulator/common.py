"""Small things of TensorRT that builder and runtime share: loggers, shapes, bytes."""

import ctypes
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from emulator.enums import Severity

__all__ = ["Dims", "IHostMemory", "ILogger", "Logger", "Managed"]


class ILogger:
    """Subclass it and write `log(severity, message)`."""

    Severity = Severity
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError("Tried to call pure virtual function ILogger::log")


class Logger(ILogger):
    """Prints to stderr what is at least as severe as `min_severity`."""

    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        ILogger.__init__(self)
        self.min_severity = min_severity

    def log(self, severity: Any, msg: str) -> None:
        if severity <= self.min_severity:
            print(f"[TRT] [{severity.name[0]}] {msg}", file=sys.stderr)


class Dims:
    """A shape. It is a sequence and equal to a tuple, but none, as TensorRT's is."""

    MAX_DIMS = 8

    def __init__(self, shape: Iterable[int] = ()) -> None:
        self._shape = tuple(int(d) for d in shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, list, Dims)) and tuple(other) == self._shape

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._shape)


class IHostMemory:
    """Bytes that TensorRT made: a buffer, for `memoryview` or `bytes`, and no `bytes` itself.

    Before Python 3.12 only ctypes gives a class of one's own that is a buffer, a class for each size.
    """

    def __new__(cls, data: bytes) -> Any:
        size = len(data)
        kind: Any = type(cls.__name__, (ctypes.c_ubyte * size,), {"nbytes": property(lambda self: size)})
        return kind.from_buffer_copy(data)

    @property
    def nbytes(self) -> int:
        """How many."""
        raise NotImplementedError


class Managed:
    """What can stand in a `with`, which does nothing, as in TensorRT 10."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None
