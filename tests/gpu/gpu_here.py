"""What of a GPU machine is here. A test module that needs more is skipped as a whole, with the reason."""

import ctypes
import importlib
from dataclasses import dataclass

import numpy as np
import pytest

from engines.backends import find_backends, is_installed
from engines.machine import Gpu, ask_driver, libcuda
from splitmerge.package import Package

MIB = 1 << 20


@dataclass(frozen=True)
class Trained:
    """The shipped network as a package with engines, frames, and PyTorch's labels of them."""

    package: Package
    frames: list[np.ndarray]
    expected: list[np.ndarray]


def gpus_or_skip() -> list[Gpu]:
    """The GPUs, which pycuda can use."""
    gpus, problems = ask_driver()
    if not gpus:
        pytest.skip(f"needs an NVIDIA GPU: {'; '.join(problems)}", allow_module_level=True)
    if not is_installed("pycuda"):
        pytest.skip("needs pycuda, which is not installed: pip install pycuda", allow_module_level=True)
    try:
        importlib.import_module("pycuda.driver")
    except ImportError as error:
        pytest.skip(f"needs pycuda, which cannot be imported ({error})", allow_module_level=True)
    return gpus


def backends_or_skip() -> list[str]:
    """TensorRT's backends that run engines on the GPUs here."""
    gpus_or_skip()
    found, backends = find_backends(), backends_here()
    if not backends:
        reasons = "; ".join(f"{name}: {found[name].obstacle}" for name in ("tensorrt", "tensorrt-rtx"))
        pytest.skip(f"needs TensorRT on a GPU that it supports: {reasons}", allow_module_level=True)
    for module in ("torch", "onnx", "onnxscript", "safetensors"):
        if not is_installed(module):
            pytest.skip(f"exports a network, and {module} is not installed: make setup-test", allow_module_level=True)
    return backends


def backends_here() -> list[str]:
    """TensorRT's backends that run here, without a word where there are none."""
    found = find_backends()
    return [name for name in ("tensorrt", "tensorrt-rtx") if found[name].runs]


def current_context() -> int | None:
    """The driver's own word on which context is current in this thread; None where there is none."""
    library, context = libcuda(), ctypes.c_void_p()
    assert library is not None
    assert library.cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value
