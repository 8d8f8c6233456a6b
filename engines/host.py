"""The CPU as a device: buffers are NumPy arrays, and every call is done when it returns."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.interface import Buffer, Context

__all__ = ["HostBuffer", "HostContext", "HostDevice", "HostEngine", "host_array"]


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


class HostContext(Context):
    """What contexts on the CPU have in common, where nothing is left to wait for. `enqueue` is each one's own."""

    def prepare(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        self.enqueue(feeds, outputs)

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        if array.shape != buffer.shape or array.dtype != buffer.dtype:
            raise ValueError(f"A buffer {buffer.dtype} {buffer.shape} was given {array.dtype} {array.shape}.")
        np.copyto(host_array(buffer), array)

    def read(self, buffer: Buffer) -> NDArray[Any]:
        return host_array(buffer)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


class HostEngine:
    """What engines on the CPU have in common (`engines.interface.Engine`)."""

    def __init__(self) -> None:
        self.device = HostDevice()

    @property
    def context_bytes(self) -> int | None:
        return None  # nobody keeps an account of it

    @property
    def batches(self) -> tuple[int, int] | None:
        return None

    def close(self) -> None:
        pass
