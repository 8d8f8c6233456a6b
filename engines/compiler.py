"""What compiling takes and gives, in the words that all backends share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitmerge.package import Graph

__all__ = ["Compiled", "Compiler", "GpuOptions"]


@dataclass(frozen=True)
class Compiled:
    """What a backend says about a file it has written: its version, what it is bound to, and facts for people."""

    version: str
    machine: Mapping[str, Any]
    build: Mapping[str, Any]
    notes: str = ""


@dataclass(frozen=True)
class GpuOptions:
    """How TensorRT shall build; ONNX Runtime needs none of it.

    `capability` is the compute capability to build for ahead of time ("8.9"), None for the GPU that CUDA calls
    `device`. The trunk takes `min_batches` to `max_batches` split batches and is tuned for `opt_batches`; a context
    reserves memory for the most. `optimization_level` is 0 (quick to build) to 5 (quick to run), None for TensorRT's
    own choice. `timing_cache` is the file to keep measurements in, None for one in the package.
    `hardware_compatibility` is one of `engines.plan.HARDWARE_COMPATIBILITY`, `precision_constraints` of
    `engines.layer_types.CONSTRAINTS`.
    """

    capability: str | None = None
    min_batches: int = 1
    opt_batches: int = 1
    max_batches: int = 4
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    device: int = 0
    precision_constraints: str = "obey"


Compiler = Callable[[Path, Graph, Path], Compiled]
"""Takes the ONNX file, what the manifest says of it, and the file to write."""
