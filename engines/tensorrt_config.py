"""How TensorRT shall build: GpuOptions as a builder configuration, for each module and version as far as it can.

What a version can do is found with `hasattr`, or by setting it and reading it back: TensorRT-RTX has the members of
TensorRT and ignores some with a warning in the log.
"""

from collections.abc import Iterator
from typing import Any

from engines.compiler import GpuOptions
from splitmerge.errors import EngineError
from splitmerge.package import Graph, TensorInfo

__all__ = ["flags", "make_config", "profile_shapes"]

_FREE_BATCH_OF_FRAMES = 1  # frames come one at a time


def make_config(trt: Any, backend: str, builder: Any, graph: Graph, options: GpuOptions, log: Any) -> Any:
    """A configuration with a profile for the graph's inputs. Raises EngineError for what this TensorRT cannot do."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # prints the layer dump
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # a float32 graph means float32, not a 10-bit mantissa
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.capability is not None:
        _set_capability(trt, backend, config, options.capability)
    if options.optimization_level is not None:
        _set_level(trt, backend, config, options.optimization_level)
    if options.hardware_compatibility != "none":
        _set_hardware_compatibility(trt, backend, config, options.hardware_compatibility)
    if options.version_compatible:
        _set_version_compatible(trt, backend, config)
    profile = builder.create_optimization_profile()
    for name, shapes in profile_shapes(graph, options).items():
        profile.set_shape(name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{backend} refuses the shapes of {graph.file}{log.last_error()}.")
    return config


def profile_shapes(graph: Graph, options: GpuOptions) -> dict[str, list[tuple[int, ...]]]:
    """Smallest, best and largest shape of each input."""
    batches = (options.min_batches, options.opt_batches, options.max_batches)

    def shape(tensor: TensorInfo, count: int) -> tuple[int, ...]:
        free = _FREE_BATCH_OF_FRAMES if tensor.dtype == "uint8" else count
        return tuple(free if size is None else size for size in tensor.shape)

    return {tensor.name: [shape(tensor, count) for count in batches] for tensor in graph.inputs}


def flags(kind: Any, get: Any) -> list[str]:
    """The names of the members of the enumeration `kind` that `get` says are set; their numbers differ by version."""
    return sorted(name for name, value in _members(kind) if get(value))


def _set_capability(trt: Any, backend: str, config: Any, capability: str) -> None:
    known = getattr(trt, "ComputeCapability", None)
    if known is None or not hasattr(config, "set_compute_capability"):
        raise EngineError(f"{backend} builds for the GPU at hand only: leave out --compute-capability.")
    value = getattr(known, f"SM{capability.replace('.', '')}", None)
    config.num_compute_capabilities = 1
    if value is None or not config.set_compute_capability(value, 0):
        have = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in _capabilities(known))
        raise EngineError(
            f"{backend} {trt.__version__} cannot build for compute capability {capability}: choose one of {have}, or "
            "use TensorRT on a machine that has the GPU."
        )


def _set_level(trt: Any, backend: str, config: Any, level: int) -> None:
    config.builder_optimization_level = level
    if config.builder_optimization_level != level:  # too high a one is lowered
        raise EngineError(
            f"{backend} {trt.__version__} has no optimisation level {level}: give --optimization-level 0 to "
            f"{config.builder_optimization_level}."
        )


def _set_hardware_compatibility(trt: Any, backend: str, config: Any, level: str) -> None:
    known, name = trt.HardwareCompatibilityLevel, level.replace("-", "_").upper()
    if hasattr(known, name):
        config.hardware_compatibility_level = getattr(known, name)
        if config.hardware_compatibility_level == getattr(known, name):
            return
        have = "none"  # TensorRT-RTX knows the words, warns and stays at NONE
    else:
        have = ", ".join(sorted(other.lower().replace("_", "-") for other, _ in _members(known)))
    raise EngineError(
        f"{backend} {trt.__version__} builds no plans that are {level} compatible: give --hardware-compatibility "
        f"{have}, and build for each kind of GPU."
    )


def _set_version_compatible(trt: Any, backend: str, config: Any) -> None:
    # TensorRT-RTX has the flag, but not the lean runtime (libnvinfer_lean) that a version-compatible plan carries
    if backend == "tensorrt-rtx" or not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
        raise EngineError(
            f"{backend} {trt.__version__} builds no plans for other versions than itself: leave out "
            "--version-compatible, and build again after an update."
        )
    config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _capabilities(known: Any) -> list[str]:
    return sorted((name for name in dir(known) if name.startswith("SM")), key=lambda name: int(name[2:]))


def _members(kind: Any) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        if name.isupper() and isinstance(getattr(kind, name), kind):
            yield name, getattr(kind, name)
