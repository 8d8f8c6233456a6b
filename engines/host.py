"""The CPU as a device: buffers are NumPy arrays."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.interface import Buffer

__all__ = ["HostBuffer", "HostDevice", "host_array"]


@dataclass(frozen=True)
class HostBuffer:
    """A contiguous array."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def batches(self, start: int, stop: int) -> "HostBuffer":
        return HostBuffer(self.array[start:stop])


class HostDevice:
    """The machine's own memory."""

    name = "cpu"

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostBuffer:
        return HostBuffer(np.empty(shape, dtype))

    def thread(self) -> AbstractContextManager[None]:
        return nullcontext()

    def free_bytes(self) -> int | None:
        return None  # what else the machine runs may take it at any time

    def close(self) -> None:
        pass


def host_array(buffer: Buffer) -> NDArray[Any]:
    """The array behind a buffer of this device. Raises TypeError for another device's."""
    if not isinstance(buffer, HostBuffer):
        raise TypeError(f"A CPU engine needs the buffers of its own device, not {type(buffer).__name__}.")
    return buffer.array
