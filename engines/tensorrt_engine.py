"""Plans on an NVIDIA GPU, the same for the modules `tensorrt` (10.3 to 11) and `tensorrt_rtx`.

A plan is deserialised once per device; its contexts share the weights. Each context has a stream of its own, its
activation memory (asked for by the shapes it really runs), page-locked staging for what it writes and reads, and CUDA
graphs: a graph holds the addresses that it was captured with, so there is one for every split batch that the context
reads in place.
"""

from typing import Any

import numpy as np

from engines.backends import backend_module
from engines.cuda import CudaDevice, CudaStream, freeing
from engines.tensorrt_context import Execution, TensorRTContext
from engines.tensorrt_log import recorder
from splitmerge.errors import EngineError
from splitmerge.package import TensorInfo

__all__ = ["TensorRTEngine"]

_MESSAGES = 1000  # of TensorRT that are kept while it runs


class TensorRTEngine:
    """A plan on one device. Its file must have been checked before: a plan is code that runs.

    `version_compatible` plans bring code of their own for the host, which TensorRT runs only if it is told that it may.
    Raises EngineError where the module is missing or does not take the plan.
    """

    def __init__(self, plan: bytes, backend: str, device: CudaDevice, version_compatible: bool = False) -> None:
        self.device = device
        self._trt: Any = backend_module(backend)
        self._log = recorder(self._trt, _MESSAGES)
        with device.thread():
            self._runtime = self._trt.Runtime(self._log)
            self._runtime.engine_host_code_allowed = version_compatible
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                self._runtime = None
                raise EngineError(f"{backend} {self._trt.__version__} does not take the plan{self._log.last_error()}.")
            tensors = [self._tensor(i) for i in range(self._engine.num_io_tensors)]
            self.context_bytes = int(self._engine.device_memory_size_v2)
            self.inputs = tuple(tensor for tensor, is_input in tensors if is_input)
            self.outputs = tuple(tensor for tensor, is_input in tensors if not is_input)
            self.batches = self._batches()
            self._how = self._context_options()

    def create_context(self) -> TensorRTContext:
        with self.device.thread():
            stream = self.device.stream()  # first: nothing that fails may leave a context behind
            try:
                base = self.create_execution(stream)
            except EngineError:
                stream.free()
                raise
            return TensorRTContext(self, Execution(base), stream, self._log)

    def create_execution(self, stream: CudaStream) -> Any:
        """A further IExecutionContext, without memory, in the plan's only profile."""
        execution = self._engine.create_execution_context(self._how)
        if execution is None:
            raise EngineError(f"{self.device.name} has no room for another context{self._log.last_error()}.")
        if not execution.set_optimization_profile_async(0, stream.handle):
            execution = None  # the error's traceback would keep it
            raise EngineError(f"TensorRT on {self.device.name} refuses its profile{self._log.last_error()}.")
        stream.synchronize()
        return execution

    def close(self) -> None:
        with freeing(self.device):
            self._how = self._engine = None
            self._runtime = None
        self._how = self._engine = self._runtime = None

    def _batches(self) -> tuple[int, int] | None:
        free = [tensor.name for tensor in self.inputs if tensor.shape[0] is None]
        if not free:
            return None
        fewest, _, most = self._engine.get_tensor_profile_shape(free[0], 0)
        return int(fewest[0]), int(most[0])

    def _context_options(self) -> Any:
        """What a context is made with: memory is ours. TensorRT-RTX finishes its kernels on the GPU itself, at the
        first use; EAGER makes the first use wait for the good ones, and one cache serves all contexts.
        """
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        specialisation = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if specialisation is None:
            return strategy
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = specialisation.EAGER
        config.set_runtime_cache(config.create_runtime_cache())
        return config

    def _tensor(self, index: int) -> tuple[TensorInfo, bool]:
        trt, engine = self._trt, self._engine
        name = engine.get_tensor_name(index)
        shape = tuple(None if d < 0 else int(d) for d in engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        return TensorInfo(name, dtype, shape), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
