"""The GPU that is measured on, what is installed for it, and how much of its memory is free."""

import importlib
import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarks.machine import machine
from engines.backends import is_installed
from engines.machine import Gpu, ask_driver
from splitmerge.errors import InputError

__all__ = ["Tools", "choose_gpu", "describe", "find_tools", "free_memory"]

_DISTRIBUTIONS = (
    "pycuda",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "onnxruntime-gpu",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
)


class Tools:
    """Whether PyTorch and pycuda can use the GPU; None where they can, else in words why not."""

    def __init__(self, torch: str | None, pycuda: str | None) -> None:
        self.torch, self.pycuda = torch, pycuda


def choose_gpu(index: int) -> Gpu:
    """Raises InputError where there is no such GPU."""
    gpus, problems = ask_driver()
    for gpu in gpus:
        if gpu.index == index:
            return gpu
    here = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or f"none: {'; '.join(problems)}"
    raise InputError(f"The benchmark runs on an NVIDIA GPU, and there is no GPU {index} here (there is {here}).")


def find_tools(gpu: Gpu) -> Tools:
    """Raises InputError where neither PyTorch nor pycuda can use the GPU."""
    tools = Tools(_torch_obstacle(gpu), _pycuda_obstacle())
    if tools.torch and tools.pycuda:
        raise InputError(
            f"Nothing here can use the {gpu.name} (PyTorch: {tools.torch}; pycuda: {tools.pycuda}): run `make "
            "setup-gpu`, or install one of them."
        )
    return tools


def free_memory(gpu: Gpu, tools: Tools) -> Callable[[], int]:
    """A function for any thread that tells the GPU's free bytes. What it opens stays open to the process's end."""
    if tools.torch is None:
        import torch

        return lambda: int(torch.cuda.mem_get_info(gpu.index)[0])
    from engines.cuda import CudaDevice

    device = CudaDevice(gpu)

    def free() -> int:
        with device.thread():
            return device.free_bytes()

    return free


def describe(gpu: Gpu) -> dict[str, Any]:
    """Machine, GPU, driver and versions, for JSON."""
    facts = machine()
    versions = {name: found for name in _DISTRIBUTIONS if (found := _version(name))}
    return {
        "machine": facts,
        "gpu": {**asdict(gpu), "nvidia_driver": _nvidia_driver(gpu.index)},
        "gpu_versions": versions | _torch_versions(),
    }


def _torch_obstacle(gpu: Gpu) -> str | None:
    if not is_installed("torch"):
        return "it is not installed"
    torch = importlib.import_module("torch")
    if torch.version.cuda is None:
        return f"{torch.__version__} is a build without CUDA"
    if not torch.cuda.is_available():
        return f"{torch.__version__} cannot use the driver, which is for CUDA {gpu.driver}"
    torch.cuda.set_device(gpu.index)
    return None


def _pycuda_obstacle() -> str | None:
    if not is_installed("pycuda"):
        return "it is not installed"
    try:
        importlib.import_module("pycuda.driver")
    except ImportError as error:
        return f"it cannot be imported ({error})"
    return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_versions() -> dict[str, str]:
    if not is_installed("torch"):
        return {}
    torch = importlib.import_module("torch")
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {"torch": str(torch.__version__), "torch cuda": str(torch.version.cuda), "torch cudnn": str(cudnn)}


def _nvidia_driver(index: int) -> str:
    """The driver's own version, which only its tool tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    query = [tool, f"--id={index}", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
