"""Plans on an NVIDIA GPU, the same for the modules `tensorrt` (10.3 to 11) and `tensorrt_rtx`.

A plan is deserialised once per device; its contexts share the weights. Each context has a stream of its own, its
activation memory (asked for by the shapes it really runs), page-locked staging for what it writes and reads, and CUDA
graphs: a graph holds the addresses that it was captured with, so there is one for every split batch that the context
reads in place.
"""

import importlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda import CudaBuffer, CudaDevice, CudaStream, cuda_buffer, freeing
from engines.cuda_graphs import CaptureError, CudaGraph, capture
from engines.interface import Buffer
from engines.tensorrt_log import recorder
from splitmerge.errors import EngineError
from splitmerge.package import TensorInfo

__all__ = ["TensorRTContext", "TensorRTEngine"]

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_ALIGNMENT = 256  # bytes, of what IExecutionContext.set_tensor_address and set_device_memory take
_Key = tuple[tuple[str, int, tuple[int, ...]], ...]

log = logging.getLogger(__name__)


class TensorRTEngine:
    """A plan on one device. Its file must have been checked before: a plan is code that runs.

    Raises EngineError where the module is missing or does not take the plan.
    """

    def __init__(self, plan: bytes, backend: str, device: CudaDevice) -> None:
        self.device = device
        try:
            self._trt: Any = importlib.import_module(_MODULES[backend])
        except (ImportError, OSError) as error:
            raise EngineError(
                f"The module {_MODULES[backend]} cannot be imported ({error}): install it anew."
            ) from None
        self._log = recorder(self._trt)
        with device.thread():
            self._runtime = self._trt.Runtime(self._log)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                self._runtime = None
                raise EngineError(f"{backend} {self._trt.__version__} does not take the plan{self._log.last_error()}.")
            tensors = [self._tensor(i) for i in range(self._engine.num_io_tensors)]
        self.inputs = tuple(tensor for tensor, is_input in tensors if is_input)
        self.outputs = tuple(tensor for tensor, is_input in tensors if not is_input)

    @property
    def context_bytes(self) -> int:
        with self.device.thread():
            return int(self._engine.device_memory_size_v2)

    def create_context(self) -> "TensorRTContext":
        with self.device.thread():
            stream = self.device.stream()  # first: nothing that fails may leave a context behind
            context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            if context is None:
                stream.free()
                raise EngineError(f"{self.device.name} has no room for another context{self._log.last_error()}.")
            return TensorRTContext(context, stream, self.device, self.inputs, self._log)

    def close(self) -> None:
        with freeing(self.device):
            self._engine = None
            self._runtime = None
        self._engine = self._runtime = None

    def _tensor(self, index: int) -> tuple[TensorInfo, bool]:
        trt, engine = self._trt, self._engine
        name = engine.get_tensor_name(index)
        shape = tuple(None if d < 0 else int(d) for d in engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        return TensorInfo(name, dtype, shape), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT


class TensorRTContext:
    """One execution context and what belongs to it. Made by `TensorRTEngine.create_context`."""

    def __init__(
        self, context: Any, stream: CudaStream, device: CudaDevice, inputs: tuple[TensorInfo, ...], logger: Any
    ) -> None:
        self._context, self._stream, self._device, self._log = context, stream, device, logger
        self._dynamic = {tensor.name for tensor in inputs if None in tensor.shape}
        self._graphs: dict[_Key, CudaGraph] = {}
        self._staging: dict[int, NDArray[Any]] = {}
        self._scratch: dict[str, CudaBuffer] = {}
        self._memory = self._memory_size = 0
        self._captures = True

    @property
    def memory_bytes(self) -> int:
        """Activation memory that the context holds, for the largest shapes it has run."""
        return self._memory_size

    def prepare(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once plainly, as TensorRT asks for before a capture, then capture the same as a graph."""
        key, buffers = self._bound(feeds, outputs)
        self._start(buffers, set(feeds))
        self.synchronize()
        if key in self._graphs or not self._captures:
            return
        try:
            self._graphs[key] = capture(self._stream.handle, self._execute)
        except (CaptureError, EngineError) as error:
            self._captures = False
            log.warning("%s: no CUDA graph (%s), running without", self._device.name, error)

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        target = cuda_buffer(buffer, self._device)
        if array.shape != target.shape or array.dtype != target.dtype:
            raise ValueError(f"A buffer {target.dtype} {target.shape} was given {array.dtype} {array.shape}.")
        staging = self._staged(target)
        np.copyto(staging, array)
        self._stream.write(target, staging)

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        key, buffers = self._bound(feeds, outputs)
        graph = self._graphs.get(key)
        with self._stream.timed():
            if graph is None:
                self._start(buffers, set(feeds))
            else:
                self._launch(graph)

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
        if self._context is None:
            return
        # Each by itself: what a failed device does not let go must not keep the rest.
        with freeing(self._device):
            self._stream.synchronize()  # what still runs must not lose its memory
        with freeing(self._device):
            self._forget_graphs()
        with freeing(self._device):
            self._context = None
            self._stream.free()
        self._context = None
        for address in self._owned():
            with freeing(self._device):
                self._device.release(address)

    def _forget_graphs(self) -> None:
        while self._graphs:
            self._graphs.popitem()[1].free()

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

    def _start(self, buffers: Mapping[str, CudaBuffer], inputs: set[str]) -> None:
        for name, buffer in buffers.items():
            if name in self._dynamic and name in inputs and not self._context.set_input_shape(name, buffer.shape):
                raise self._error(f"takes no {name} of {buffer.shape}")
            if not self._context.set_tensor_address(name, buffer.address):
                raise self._error(f"does not take the address of {name}")
        self._reserve()
        self._execute()

    def _reserve(self) -> None:
        """Activation memory for the shapes that are set; it only ever grows."""
        needed = int(self._context.update_device_memory_size_for_shapes())
        if needed > self._memory_size or not self._memory:
            if self._memory:
                self._stream.synchronize()
                self._forget_graphs()  # they hold the old memory's address
                self._device.release(self._memory)
            self._memory = self._memory_size = 0
            self._memory, self._memory_size = self._room_for(needed), needed
        self._context.set_device_memory(self._memory, self._memory_size)

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

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._error("could not start")

    def _launch(self, graph: CudaGraph) -> None:
        try:
            graph.launch(self._stream.handle)
        except CaptureError as error:
            raise EngineError(f"{self._device.name} could not start the engine ({error}).") from None

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
