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

    `capability` is the compute capability to build for ahead of time ("8.9"), None for the GPU at hand. The trunk takes
    `min_batches` to `max_batches` split batches and is tuned for `opt_batches`; a context reserves memory for the most.
    """

    capability: str | None = None
    min_batches: int = 1
    opt_batches: int = 1
    max_batches: int = 4
    workspace_mib: int | None = None


Compiler = Callable[[Path, Graph, Path], Compiled]
"""Takes the ONNX file, what the manifest says of it, and the file to write."""
