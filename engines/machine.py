"""What an engine file is bound to: the processor that it was made on or for."""

import ctypes
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Gpu", "cpu_identity", "find_gpus"]

# ONNX Runtime lays weights out for the widest vector unit it finds, so these decide whether an optimised graph fits
_VECTOR_UNITS = ("avx", "fma", "f16c", "amx", "asimd", "sve", "i8mm", "bf16", "neon")
_CPUINFO = Path("/proc/cpuinfo")

# CUdevice_attribute, from cuda.h
_MULTIPROCESSOR_COUNT, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. `capability` is its compute capability ("8.9"), `driver` the CUDA version the driver speaks."""

    name: str
    capability: str
    multiprocessors: int
    driver: str


def cpu_identity() -> dict[str, str]:
    """Architecture and vector units, as text that is equal on machines that may share an optimised graph."""
    return {"architecture": platform.machine(), "cpu_features": _features()}


def find_gpus() -> list[Gpu]:
    """The NVIDIA GPUs here, asked of the driver alone: TensorRT may end the process where there is none."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    count, driver = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or cuda.cuDriverGetVersion(ctypes.byref(driver)):
        return []
    version = f"{driver.value // 1000}.{driver.value % 1000 // 10}"
    return [_gpu(cuda, index, version) for index in range(count.value)]


def _gpu(cuda: ctypes.CDLL, index: int, driver: str) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    capability = f"{attribute(_CAPABILITY_MAJOR)}.{attribute(_CAPABILITY_MINOR)}"
    return Gpu(name.value.decode(errors="replace"), capability, attribute(_MULTIPROCESSOR_COUNT), driver)


def _features() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:  # macOS and Windows have no such file: the processor's name is stricter, never laxer
        return platform.processor() or "unknown"
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return " ".join(sorted({flag for flag in value.split() if flag.startswith(_VECTOR_UNITS)}))
    return platform.processor() or "unknown"
