"""The stand-ins as modules: `tensorrt`, `pycuda`, `pycuda.driver`. Made once, so that an import kept from one test
still works in the next.
"""

import importlib.machinery
import types
from collections.abc import Iterable

from emulator import (
    allocations,
    builder,
    common,
    contexts,
    copies,
    engine,
    enums,
    errors,
    execution,
    network,
    queues,
    settings,
)

__all__ = ["AUTOINIT", "MODULES"]

AUTOINIT = "pycuda.autoinit"


def _module(name: str, sources: Iterable[tuple[types.ModuleType, str]], package: bool = False) -> types.ModuleType:
    made = types.ModuleType(name, "A stand-in, for tests.")
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=package)
    if package:
        made.__path__ = []
    for source, names in sources:
        for each in names.split():
            setattr(made, each, getattr(source, each))
    return made


_PYCUDA_ERRORS = "Error MemoryError LogicError LaunchError RuntimeError"
_TENSORRT = [
    (common, "Dims IHostMemory ILogger Logger"),
    (enums, "BuilderFlag DataType ExecutionContextAllocationStrategy HardwareCompatibilityLevel"),
    (enums, "LayerInformationFormat LayerType MemoryPoolType NetworkDefinitionCreationFlag OnnxParserFlag"),
    (enums, "ProfilingVerbosity TensorIOMode TensorLocation nptype"),
    (network, "ILayer INetworkDefinition ITensor OnnxParser ParserError"),
    (builder, "Builder"),
    (settings, "IBuilderConfig IOptimizationProfile IProgressMonitor ITimingCache"),
    (engine, "EngineInspector ICudaEngine Runtime"),
    (execution, "IExecutionContext"),
]
_DRIVER = [
    (errors, _PYCUDA_ERRORS),
    (contexts, "Context Device device_attribute get_driver_version init"),
    (queues, "Event Stream event_flags"),
    (allocations, "DeviceAllocation PagelockedHostAllocation mem_alloc mem_get_info pagelocked_empty"),
    (copies, "memcpy_dtod memcpy_dtod_async memcpy_dtoh memcpy_dtoh_async memcpy_htod memcpy_htod_async"),
    (copies, "memset_d8 memset_d8_async"),
]

MODULES = {
    "tensorrt": _module("tensorrt", _TENSORRT, package=True),
    "pycuda": _module("pycuda", [], package=True),
    "pycuda.driver": _module("pycuda.driver", _DRIVER),
}
MODULES["pycuda"].driver = MODULES["pycuda.driver"]  # type: ignore[attr-defined]
