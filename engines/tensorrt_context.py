"""One stream of executions of a plan, with its memory, its staging and its CUDA graphs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda import CudaBuffer, CudaStream, cuda_buffer, freeing
from engines.cuda_graphs import CaptureError, CudaGraph, capture
from engines.interface import Buffer
from splitmerge.errors import EngineError

if TYPE_CHECKING:
    from engines.tensorrt_engine import TensorRTEngine

__all__ = ["Execution", "TensorRTContext"]

_ALIGNMENT = 256  # bytes, of what IExecutionContext.set_tensor_address and set_device_memory take
_Key = tuple[tuple[str, int, tuple[int, ...]], ...]

log = logging.getLogger(__name__)


@dataclass
class Execution:
    """An IExecutionContext, and the graph that was captured from it, if any. Emptied when it is closed, so that nothing
    that still knows of it, as an error's traceback does, keeps the plan alive.
    """

    raw: Any
    graph: CudaGraph | None = None

    def close(self) -> None:
        graph, self.graph, self.raw = self.graph, None, None
        if graph is not None:
            graph.free()


class TensorRTContext:
    """One stream of executions and what belongs to it. Made by `TensorRTEngine.create_context`.

    `base` runs whatever was not prepared. What was prepared has an execution of its own behind its graph, because a
    graph must not outlive a change of the execution that it was captured from; all of them share the activation memory,
    which their common stream keeps them from using at once.
    """

    def __init__(self, engine: "TensorRTEngine", base: Execution, stream: CudaStream, logger: Any) -> None:
        self._engine, self._base, self._stream, self._log = engine, base, stream, logger
        self._prepared: dict[_Key, Execution] = {}
        self._device = engine.device
        self._dynamic = {tensor.name for tensor in engine.inputs if None in tensor.shape}
        self._staging: dict[int, NDArray[Any]] = {}
        self._scratch: dict[str, CudaBuffer] = {}
        self._memory = self._memory_size = 0
        self._captures, self._closed = True, False

    @property
    def memory_bytes(self) -> int:
        """Activation memory that the context holds, for the largest shapes it has run."""
        return self._memory_size

    @property
    def graphs(self) -> int:
        """How many executions were captured."""
        return len(self._prepared)

    def prepare(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once plainly, as TensorRT asks for before a capture, then capture the same as a graph."""
        key, buffers = self._bound(feeds, outputs)
        if key not in self._prepared and self._captures:
            try:
                self._capture(key, buffers, set(feeds))
                return
            except (CaptureError, EngineError) as error:
                self._captures = False
                self._log.errors.clear()
                log.warning("%s: no CUDA graph (%s), running without", self._device.name, error)
        self._run(key, buffers, set(feeds))
        self.synchronize()

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        target = cuda_buffer(buffer, self._device)
        if array.shape != target.shape or array.dtype != target.dtype:
            raise ValueError(f"A buffer {target.dtype} {target.shape} was given {array.dtype} {array.shape}.")
        staging = self._staged(target)
        np.copyto(staging, array)
        self._stream.write(target, staging)

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        key, buffers = self._bound(feeds, outputs)
        with self._stream.timed():
            self._run(key, buffers, set(feeds))

    def read(self, buffer: Buffer) -> NDArray[Any]:
        source = cuda_buffer(buffer, self._device)
        staging = self._staged(source)
        self._stream.read(staging, source)
        return staging

    def synchronize(self) -> None:
        self._stream.synchronize()

    def elapsed_ms(self) -> float:
        """Milliseconds that the last enqueued execution took on the device. Synchronise first."""
        return self._stream.elapsed_ms()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Each by itself: what a failed device does not let go must not keep the rest.
        with freeing(self._device):
            self._stream.synchronize()  # what still runs must not lose its memory
        for execution in (*self._prepared.values(), self._base):
            with freeing(self._device):
                execution.close()
            execution.raw = None  # also where the device could not be made current
        with freeing(self._device):
            self._stream.free()
        for address in self._owned():
            with freeing(self._device):
                self._device.release(address)

    def _capture(self, key: _Key, buffers: Mapping[str, CudaBuffer], inputs: set[str]) -> None:
        execution = Execution(self._engine.create_execution(self._stream))
        context = execution.raw
        try:
            self._start(execution, buffers, inputs)
            self.synchronize()
            if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(self._stream.handle):
                raise CaptureError("TensorRT says that this plan cannot be captured")
            execution.graph = capture(self._stream.handle, lambda: self._execute(execution))
        except BaseException:
            context = None
            execution.close()
            raise
        self._prepared[key] = execution

    def _forget(self) -> None:
        while self._prepared:
            self._prepared.popitem()[1].close()

    def _owned(self) -> list[int]:
        """Addresses of all memory that is this context's alone."""
        staging = [array.ctypes.data for array in self._staging.values()]
        scratch = [buffer.address for buffer in self._scratch.values()]
        return staging + scratch + ([self._memory] if self._memory else [])

    def _bound(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> tuple[_Key, dict[str, CudaBuffer]]:
        buffers = {name: self._aligned(name, cuda_buffer(buffer, self._device)) for name, buffer in feeds.items()}
        buffers |= {name: cuda_buffer(buffer, self._device) for name, buffer in outputs.items()}
        return tuple((name, buffer.address, buffer.shape) for name, buffer in buffers.items()), buffers

    def _aligned(self, name: str, buffer: CudaBuffer) -> CudaBuffer:
        """The buffer itself, or a copy of it where it begins at an address that TensorRT does not take.

        Only narrow networks on odd sizes need the copy: 64 channels of float32 are aligned whatever their size.
        """
        if buffer.address % _ALIGNMENT == 0:
            return buffer
        scratch = self._scratch.get(name)
        if scratch is None or scratch.nbytes < buffer.nbytes:
            if scratch is not None:
                self._stream.synchronize()
                del self._scratch[name]
                self._device.release(scratch.address)
            scratch = self._scratch[name] = self._device.empty(buffer.shape, buffer.dtype)
        target = CudaBuffer(scratch.address, buffer.shape, buffer.dtype, buffer.device)
        self._stream.copy(target, buffer)
        return target

    def _run(self, key: _Key, buffers: Mapping[str, CudaBuffer], inputs: set[str]) -> None:
        prepared = self._prepared.get(key)
        if prepared is None or prepared.graph is None:
            self._start(self._base, buffers, inputs)
            return
        try:
            prepared.graph.launch(self._stream.handle)
        except CaptureError as error:
            raise EngineError(f"{self._device.name} could not start the engine ({error}).") from None

    def _start(self, execution: Execution, buffers: Mapping[str, CudaBuffer], inputs: set[str]) -> None:
        for name, buffer in buffers.items():
            dynamic = name in self._dynamic and name in inputs
            if dynamic and not execution.raw.set_input_shape(name, buffer.shape):
                raise self._error(f"takes no {name} of {buffer.shape}")
            if not execution.raw.set_tensor_address(name, buffer.address):
                raise self._error(f"does not take the address of {name}")
        # 0 is also what a failure gives: then the most that the plan may need
        needed = int(execution.raw.update_device_memory_size_for_shapes()) or self._engine.context_bytes
        self._reserve(max(needed, _ALIGNMENT))
        execution.raw.set_device_memory(self._memory, self._memory_size)
        self._execute(execution)

    def _reserve(self, needed: int) -> None:
        """Activation memory of so many bytes; it only ever grows."""
        if needed > self._memory_size:
            if self._memory:
                self._stream.synchronize()
                self._forget()  # they hold the old memory's address
                self._device.release(self._memory)
            self._memory = self._memory_size = 0
            self._memory, self._memory_size = self._room_for(needed), needed

    def _room_for(self, size: int) -> int:
        try:
            return self._device.allocate(size)
        except EngineError:
            free = self._device.free_bytes()
            if free >= size:
                raise
            raise EngineError(
                f"A context of {size / 2**20:.2f} MiB does not fit {self._device.name}, which has "
                f"{free / 2**20:.2f} MiB left: give fewer --contexts or a smaller --chunk."
            ) from None

    def _execute(self, execution: Execution) -> None:
        if not execution.raw.execute_async_v3(self._stream.handle):
            raise self._error("could not start")

    def _staged(self, buffer: CudaBuffer) -> NDArray[Any]:
        """Page-locked host memory for what lies at the buffer's address, in the buffer's shape."""
        staging = self._staging.get(buffer.address)
        if staging is None or staging.nbytes < buffer.nbytes:
            if staging is not None:
                del self._staging[buffer.address]  # first: the new one may not be had
                self._device.release(staging.ctypes.data)
            staging = self._staging[buffer.address] = self._device.pinned((buffer.nbytes,), np.dtype(np.uint8))
        return staging[: buffer.nbytes].view(buffer.dtype).reshape(buffer.shape)

    def _error(self, what: str) -> EngineError:
        return EngineError(f"TensorRT on {self._device.name} {what}{self._log.last_error()}.")
