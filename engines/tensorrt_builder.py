"""Plans for NVIDIA GPUs: one path through the modules `tensorrt` (10.3 to 11) and `tensorrt_rtx`.

Networks are strongly typed: each layer has the precision that the ONNX graph gives it. What a version can do is found
with `hasattr`, and flags are remembered by name, because their numbers differ between versions.
"""

import importlib
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.compiler import Compiled, GpuOptions
from engines.layer_dump import convolution_types, layers_from_log
from engines.machine import Gpu, find_gpus
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Graph, TensorInfo

__all__ = ["TensorRTCompiler"]

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_ACTIVATIONS = "Total Activation Memory: "


class TensorRTCompiler:
    """Compiles ONNX files to plans with one of the two modules.

    Raises EngineError where the module is missing or there is no GPU to build for, InputError for options that cannot
    be.
    """

    def __init__(self, backend: str, options: GpuOptions) -> None:
        self._backend, self._options = backend, options
        batches = (options.min_batches, options.opt_batches, options.max_batches)
        if not 1 <= batches[0] <= batches[1] <= batches[2]:
            raise InputError(
                f"Split batches of at least, best and at most {batches} cannot be: give them in rising order."
            )
        if options.capability is not None and not re.fullmatch(r"\d+\.\d", options.capability):
            raise InputError(f"{options.capability!r} is no compute capability: write it as 8.9.")
        self._gpu = _gpu_to_build_for(backend, options)
        try:
            self._trt: Any = importlib.import_module(_MODULES[backend])
        except (ImportError, OSError) as error:
            raise EngineError(
                f"The module {_MODULES[backend]} cannot be imported ({error}): install it anew."
            ) from None

    def __call__(self, path: Path, graph: Graph, engine: Path) -> Compiled:
        """Compile the ONNX file `path` into the plan `engine`. Raises EngineError where TensorRT refuses."""
        trt = self._trt
        log = _recorder(trt)
        builder = trt.Builder(log)
        if builder is None:
            raise EngineError(f"{self._backend} gives no builder here{log.last_error()}.")
        network = _parse(trt, builder, path, log)
        config = self._config(builder, network, graph, log)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(f"{self._backend} {trt.__version__} cannot build {path}{log.last_error()}.")
        engine.write_bytes(memoryview(plan))
        return self._describe(network, config, log)

    def _config(self, builder: Any, network: Any, graph: Graph, log: Any) -> Any:
        trt, options = self._trt, self._options
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # prints the layer dump
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)  # a float32 graph means float32, not a 10-bit mantissa
        if options.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
        if options.capability is not None:
            self._set_capability(config, options.capability)
        profile = builder.create_optimization_profile()
        for tensor in graph.inputs:
            profile.set_shape(tensor.name, *self._shapes(tensor))
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"{self._backend} refuses the shapes of {graph.file}{log.last_error()}.")
        return config

    def _shapes(self, tensor: TensorInfo) -> list[tuple[int, ...]]:
        """Smallest, best and largest shape of an input; frames come one at a time."""
        options = self._options
        batches = (options.min_batches, options.opt_batches, options.max_batches)
        return [
            tuple((1 if tensor.dtype == "uint8" else count) if d is None else d for d in tensor.shape)
            for count in batches
        ]

    def _set_capability(self, config: Any, capability: str) -> None:
        known = getattr(self._trt, "ComputeCapability", None)
        if known is None or not hasattr(config, "set_compute_capability"):
            raise EngineError(f"{self._backend} builds for the GPU at hand only: leave out --compute-capability.")
        value = getattr(known, f"SM{capability.replace('.', '')}", None)
        config.num_compute_capabilities = 1
        if value is None or not config.set_compute_capability(value, 0):
            have = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in _capabilities(known))
            raise EngineError(
                f"{self._backend} {self._trt.__version__} cannot build for compute capability {capability}: choose one "
                f"of {have}, or use TensorRT on a machine that has the GPU."
            )

    def _describe(self, network: Any, config: Any, log: Any) -> Compiled:
        trt, options = self._trt, self._options
        layers = layers_from_log(log.messages)
        names = [
            network.get_layer(i).name for i in range(network.num_layers) if _is_convolution(trt, network.get_layer(i))
        ]
        types = convolution_types(layers, names)
        activations = next((int(m.split()[-2]) for m in log.messages if m.startswith(_ACTIVATIONS)), None)
        machine = {
            "os": platform.system(),
            "capability": options.capability or (self._gpu and self._gpu.capability),
            "gpu": asdict(self._gpu) if self._gpu else None,
        }
        build = {
            "options": asdict(options),
            "flags": _flags(trt.BuilderFlag, config.get_flag),
            "network_flags": _flags(trt.NetworkDefinitionCreationFlag, network.get_flag),
            "layers": len(layers),
            "convolutions": types,
            "activation_bytes": activations,
            "io": [_io(network.get_input(i)) for i in range(network.num_inputs)]
            + [_io(network.get_output(i)) for i in range(network.num_outputs)],
        }
        notes = ", ".join(f"{count} convolutions {kind}" for kind, count in types.items())
        if activations is not None:
            notes += f", {activations / 2**20:.0f} MiB activations a context"
        return Compiled(trt.__version__, machine, build, notes)


def _gpu_to_build_for(backend: str, options: GpuOptions) -> Gpu | None:
    gpus = find_gpus()
    if options.capability is not None and backend == "tensorrt-rtx":
        return None
    if not gpus:
        ahead = (
            "name the GPU to build for, as in --compute-capability 8.9"
            if backend == "tensorrt-rtx"
            else ("build on the machine that the engine is for, or use --backend tensorrt-rtx or onnxruntime")
        )
        raise EngineError(f"{backend} has no NVIDIA GPU with a driver here to build for: {ahead}.")
    return gpus[0]


def _parse(trt: Any, builder: Any, path: Path, log: Any) -> Any:
    flag = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flag.STRONGLY_TYPED) if hasattr(flag, "STRONGLY_TYPED") else 0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        words = "; ".join(f"{_node_of(error)}: {' '.join(error.desc().split())}" for error in errors)
        raise EngineError(
            f"TensorRT's parser does not take {path} ({words or 'it does not say why'}): export the network again, or "
            "change these operators."
        )
    return network


def _node_of(error: Any) -> str:
    """The node that a parser error is about; 10.3 knows only its number."""
    if hasattr(error, "node_name") and hasattr(error, "node_operator"):
        return f"node {error.node_name() or error.node()} ({error.node_operator()})"
    return f"node number {error.node()}"


def _recorder(trt: Any) -> Any:
    """A logger that keeps every message."""

    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append(message)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def last_error(self) -> str:
            """Its last error, to be put behind a sentence."""
            return f" ({' '.join(self.errors[-1].split())})" if self.errors else ""

    return Recorder()


def _capabilities(known: Any) -> list[str]:
    return sorted((name for name in dir(known) if name.startswith("SM")), key=lambda name: int(name[2:]))


def _flags(kind: Any, get: Any) -> list[str]:
    return sorted(name for name, value in _members(kind) if get(value))


def _members(kind: Any) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        if name.isupper() and isinstance(getattr(kind, name), kind):
            yield name, getattr(kind, name)


def _is_convolution(trt: Any, layer: Any) -> bool:
    return bool(layer.type == trt.LayerType.CONVOLUTION)


def _io(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": str(tensor.dtype).rsplit(".", 1)[-1], "shape": list(tensor.shape)}
