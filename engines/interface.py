"""What every backend gives: a device with buffers, an engine on it, and contexts that run the engine.

    device = engine.device
    frames = device.empty((1, 512, 1024, 3), np.dtype(np.uint8))
    features = device.empty((16, 64, 128, 256), np.dtype(np.float32))
    device.write(frames, array)
    context.enqueue({"frames": frames}, {"features": features})
    context.synchronize()
    other_context.enqueue({"features": features.batches(3, 4)}, {"labels": labels})

The interface is a GPU's: buffers are made once and written in place, running is asynchronous on the context's own
stream, and a buffer's split batches are handed on by address. On a CPU the same calls are views of NumPy memory.
"""

from collections.abc import Mapping
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

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """New memory with undefined contents."""

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of the buffer's shape and type into it; done when this returns."""

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """The buffer's contents on the host, valid until the buffer is written again.

        Synchronise first whatever writes it.
        """


class Context(Protocol):
    """One independent execution of an engine. It is used by one thread at a time and runs one thing at a time."""

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Start the engine on all its inputs, writing into `outputs`; both must stay alive until `synchronize`.

        Allocates no inputs or outputs. Raises EngineError where the engine refuses the buffers.
        """

    def synchronize(self) -> None:
        """Wait until everything enqueued is done. Raises EngineError where it failed."""


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

    def create_context(self) -> Context:
        """A further context. All contexts share the engine's weights."""
