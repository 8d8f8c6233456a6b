"""What an engine file is bound to: the processor that it was made on or for.

GPUs are asked of NVIDIA's driver library alone: TensorRT may end the process where there is no driver, and the driver
is there wherever a GPU can be used.
"""

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitmerge.errors import EngineError

__all__ = ["Gpu", "ask_driver", "cpu_identity", "find_gpus", "libcuda"]

# ONNX Runtime lays weights out for the widest vector unit it finds, so these decide whether an optimised graph fits
_VECTOR_UNITS = ("avx", "fma", "f16c", "amx", "asimd", "sve", "i8mm", "bf16", "neon")
_CPUINFO = Path("/proc/cpuinfo")

# CUdevice_attribute, from cuda.h
_MULTIPROCESSOR_COUNT, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76

# what helps against the CUresult values (cuda.h) that users meet when the driver starts
_NO_DEVICE = 100
_ADVICE = {
    34: "libcuda.so.1 is CUDA's empty stand-in for linking: take its folder out of LD_LIBRARY_PATH",
    803: "the driver's library and kernel module have different versions: restart the machine",
    804: "a cuda-compat library is in front of the driver's own: take it out of LD_LIBRARY_PATH",
    999: "the kernel module may not be loaded: run nvidia-smi as root, or restart the machine",
}


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. `capability` is its compute capability ("8.9"), `driver` the CUDA version the driver speaks.

    `index` is CUDA's number of it, which CUDA_VISIBLE_DEVICES changes; `memory_bytes` all of its memory.
    """

    name: str
    capability: str
    multiprocessors: int
    driver: str
    index: int
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.capability}, {self.multiprocessors} multiprocessors)"


def cpu_identity() -> dict[str, str]:
    """Architecture and vector units, as text that is equal on machines that may share an optimised graph."""
    return {"architecture": platform.machine(), "cpu_features": _features()}


def libcuda() -> ctypes.CDLL | None:
    """NVIDIA's driver library, or None where there is none."""
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def find_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that can be used here."""
    return ask_driver()[0]


def ask_driver() -> tuple[list[Gpu], list[str]]:
    """The NVIDIA GPUs that can be used here, and in words why there are none or which the driver has trouble with."""
    cuda = libcuda()
    if cuda is None:
        return [], ["no NVIDIA driver is installed"]
    try:
        _call(cuda, "cuInit", 0)
        version = _driver_version(cuda)
        count = ctypes.c_int()
        _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    except EngineError as error:
        return [], [str(error)]
    found, problems = [], []
    for index in range(count.value):
        try:
            found.append(_gpu(cuda, index, version))
        except EngineError as error:
            problems.append(f"GPU {index} cannot be used: {error}")
    return found, problems if found or problems else [_no_gpu()]


def _driver_version(cuda: ctypes.CDLL) -> str:
    number = ctypes.c_int()
    _call(cuda, "cuDriverGetVersion", ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _gpu(cuda: ctypes.CDLL, index: int, driver: str) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _call(cuda, "cuDeviceGetName", name, len(name), device)
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{attribute(_CAPABILITY_MAJOR)}.{attribute(_CAPABILITY_MINOR)}",
        multiprocessors=attribute(_MULTIPROCESSOR_COUNT),
        driver=driver,
        index=index,
        memory_bytes=memory.value,
    )


def _call(cuda: ctypes.CDLL, function: str, *arguments: Any) -> None:
    """Call the driver. Raises EngineError where it does not answer CUDA_SUCCESS."""
    code = getattr(cuda, function)(*arguments)
    if code == _NO_DEVICE:
        raise EngineError(_no_gpu())
    if code:
        advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
        raise EngineError(f"NVIDIA's driver answers {function} with error {code}{_name_of(cuda, code)}{advice}")


def _no_gpu() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    return f"NVIDIA's driver sees no GPU{hidden}"


def _name_of(cuda: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    if not hasattr(cuda, "cuGetErrorName") or cuda.cuGetErrorName(code, ctypes.byref(name)) or not name.value:
        return ""
    return f" ({name.value.decode(errors='replace')})"


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
