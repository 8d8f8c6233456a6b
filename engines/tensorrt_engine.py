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

from engines.cuda import CudaBuffer, CudaDevice, cuda_buffer
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
            strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
            if context is None:
                raise EngineError(f"{self.device.name} has no room for another context{self._log.last_error()}.")
            return TensorRTContext(context, self.device, self.inputs, self._log)

    def close(self) -> None:
        with self.device.thread():
            self._engine = None
            self._runtime = None

    def _tensor(self, index: int) -> tuple[TensorInfo, bool]:
        trt, engine = self._trt, self._engine
        name = engine.get_tensor_name(index)
        shape = tuple(None if d < 0 else int(d) for d in engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        return TensorInfo(name, dtype, shape), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT


class TensorRTContext:
    """One execution context and what belongs to it. Made by `TensorRTEngine.create_context`."""

    def __init__(self, context: Any, device: CudaDevice, inputs: tuple[TensorInfo, ...], logger: Any) -> None:
        self._context, self._device, self._log = context, device, logger
        self._dynamic = {tensor.name for tensor in inputs if None in tensor.shape}
        self._stream = device.stream()
        self._graphs: dict[_Key, CudaGraph] = {}
        self._staging: dict[int, NDArray[Any]] = {}
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
        with self._device.thread():
            while self._graphs:
                self._graphs.popitem()[1].free()
            self._context = None
            self._stream.free()
            for array in self._staging.values():
                self._device.release(array.ctypes.data)
            self._staging.clear()
            if self._memory:
                self._device.release(self._memory)

    def _bound(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> tuple[_Key, dict[str, CudaBuffer]]:
        buffers = {name: cuda_buffer(buffer, self._device) for name, buffer in (*feeds.items(), *outputs.items())}
        return tuple((name, buffer.address, buffer.shape) for name, buffer in buffers.items()), buffers

    def _start(self, buffers: Mapping[str, CudaBuffer], inputs: set[str]) -> None:
        for name, buffer in buffers.items():
            if buffer.address % _ALIGNMENT:
                raise EngineError(
                    f"TensorRT wants {name} at a multiple of {_ALIGNMENT} bytes, and this split batch begins at "
                    f"{buffer.address % _ALIGNMENT} beyond one: export for a frame size that is a larger power of two."
                )
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
            while self._graphs:  # they hold the old memory's addresses
                self._graphs.popitem()[1].free()
            if self._memory:
                self._stream.synchronize()
                self._device.release(self._memory)
            self._memory, self._memory_size = self._device.allocate(needed), needed
        self._context.set_device_memory(self._memory, self._memory_size)

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
                self._device.release(staging.ctypes.data)
            staging = self._staging[buffer.address] = self._device.pinned((buffer.nbytes,), np.dtype(np.uint8))
        return staging[: buffer.nbytes].view(buffer.dtype).reshape(buffer.shape)

    def _error(self, what: str) -> EngineError:
        return EngineError(f"TensorRT on {self._device.name} {what}{self._log.last_error()}.")
