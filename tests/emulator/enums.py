"""TensorRT's enums, with the numbers of 10.x. Only what both 10 and 11 have, but for EXPLICIT_BATCH."""

from enum import Enum
from typing import Any

import numpy as np

__all__ = [
    "BuilderFlag",
    "DataType",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParserFlag",
    "ProfilingVerbosity",
    "Severity",
    "TensorIOMode",
    "TensorLocation",
    "nptype",
]


class _Numbered(Enum):
    """pybind11's enums: `int(x)` works, equality with a number does not."""

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__


class Severity(_Numbered):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4

    def __le__(self, other: "Severity") -> bool:
        return int(self) <= int(other)

    def __lt__(self, other: "Severity") -> bool:
        return int(self) < int(other)

    def __ge__(self, other: "Severity") -> bool:
        return int(self) >= int(other)

    def __gt__(self, other: "Severity") -> bool:
        return int(self) > int(other)


class DataType(_Numbered):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8

    @property
    def itemsize(self) -> int:
        return int(np.dtype(nptype(self)).itemsize)


class TensorIOMode(_Numbered):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(_Numbered):
    DEVICE = 0
    HOST = 1


class NetworkDefinitionCreationFlag(_Numbered):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class BuilderFlag(_Numbered):
    DEBUG = 2
    GPU_FALLBACK = 3
    REFIT = 4
    DISABLE_TIMING_CACHE = 5
    TF32 = 6
    SPARSE_WEIGHTS = 7
    DIRECT_IO = 11
    VERSION_COMPATIBLE = 13
    EXCLUDE_LEAN_RUNTIME = 14
    ERROR_ON_TIMING_CACHE_MISS = 16
    DISABLE_COMPILATION_CACHE = 18
    STRIP_PLAN = 19
    REFIT_IDENTICAL = 20
    WEIGHT_STREAMING = 21
    REFIT_INDIVIDUAL = 23
    STRICT_NANS = 24
    MONITOR_MEMORY = 25
    EDITABLE_TIMING_CACHE = 27


class ProfilingVerbosity(_Numbered):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class MemoryPoolType(_Numbered):
    WORKSPACE = 0
    DLA_MANAGED_SRAM = 1
    DLA_LOCAL_DRAM = 2
    DLA_GLOBAL_DRAM = 3
    TACTIC_DRAM = 4
    TACTIC_SHARED_MEMORY = 5


class HardwareCompatibilityLevel(_Numbered):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class ExecutionContextAllocationStrategy(_Numbered):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class LayerInformationFormat(_Numbered):
    ONELINE = 0
    JSON = 1


class OnnxParserFlag(_Numbered):
    NATIVE_INSTANCENORM = 0


class LayerType(_Numbered):
    CONVOLUTION = 0
    CAST = 1
    ACTIVATION = 2
    POOLING = 3
    SCALE = 5
    SOFTMAX = 6
    DECONVOLUTION = 7
    CONCATENATION = 8
    ELEMENTWISE = 9
    UNARY = 11
    PADDING = 12
    SHUFFLE = 13
    REDUCE = 14
    TOPK = 15
    GATHER = 16
    MATRIX_MULTIPLY = 17
    CONSTANT = 19
    IDENTITY = 20
    SLICE = 22
    SHAPE = 23
    RESIZE = 25
    SELECT = 30
    QUANTIZE = 32
    DEQUANTIZE = 33
    NORMALIZATION = 45
    SQUEEZE = 47
    UNSQUEEZE = 48


_NUMPY: dict[DataType, Any] = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}


def nptype(trt_type: DataType) -> Any:
    """The NumPy type of a TensorRT type."""
    return _NUMPY[trt_type]
