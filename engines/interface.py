"""What every backend gives: a device with buffers, an engine on it, and contexts that run the engine.

    with device.thread():
        frames = device.empty((1, 512, 1024, 3), np.dtype(np.uint8))
        features = device.empty((16, 64, 128, 256), np.dtype(np.float32))
        context.write(frames, array)
        context.enqueue({"frames": frames}, {"features": features})
        context.synchronize()
        other_context.enqueue({"features": features.batches(3, 4)}, {"labels": labels})
        array = other_context.read(labels)
        other_context.synchronize()

The interface is a GPU's: buffers are made once, a context writes, runs and reads on a stream of its own, in that order
and later, and a buffer's split batches are handed on by address. On a CPU the same calls are done when they return,
and buffers are views of NumPy memory.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitmerge.package import TensorInfo

__all__ = ["Buffer", "Context", "Device", "Engine"]


class Buffer(Protocol):
    """The memory of one tensor on one device, contiguous in C order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element."""

    def batches(self, start: int, stop: int) -> "Buffer":
        """The entries [start, stop) of the first axis, in the same memory."""


class Device(Protocol):
    """One processor and its memory. An engine belongs to the device that it was loaded on."""

    @property
    def name(self) -> str:
        """What a person calls it, such as `cpu` or `cuda:0`."""

    def thread(self) -> AbstractContextManager[None]:
        """Make the device current in the calling thread. Everything on the device happens inside; it may be nested."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """New memory with undefined contents. Raises EngineError where there is not enough."""

    def free_bytes(self) -> int | None:
        """Memory that is free now; None where nobody keeps an account of it."""

    def close(self) -> None:
        """Give back all buffers. Close its engines and contexts first."""


class Context(Protocol):
    """One independent execution of an engine. It is used by one thread at a time and runs one thing at a time.

    What the calls below start is done in their order. Until `synchronize` has returned, buffers and arrays that they
    were given must stay as they are. Whatever the device refuses is an EngineError, here or at `synchronize`.
    """

    def prepare(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once and get ready to run the same again, faster. The feeds must have been written."""

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of the buffer's shape and type into it. The array may be changed at once."""

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run the engine on all its inputs, writing into `outputs`."""

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """Copy the buffer to the host: an array that is valid from `synchronize` to the next call that reads."""

    def synchronize(self) -> None:
        """Wait until everything is done."""

    def close(self) -> None:
        """Give back what the context holds. Closing twice does nothing."""


class Engine(Protocol):
    """A compiled graph on one device. A free dimension of an input or output is None."""

    @property
    def device(self) -> Device:
        """Where the engine runs and its buffers must lie."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What `Context.enqueue` must be fed."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it writes."""

    @property
    def context_bytes(self) -> int | None:
        """The most activation memory that one context takes; None where nobody knows."""

    @property
    def batches(self) -> tuple[int, int] | None:
        """The fewest and most entries of the inputs' first axis in one run; None where any number will do."""

    def create_context(self) -> Context:
        """A further context. On a GPU all share the engine's weights."""

    def close(self) -> None:
        """Give back the weights. Close its contexts first."""
