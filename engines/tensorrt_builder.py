"""Plans for NVIDIA GPUs: one path through the modules `tensorrt` (10.3 to 11) and `tensorrt_rtx`.

Networks are strongly typed: each layer has the precision that the ONNX graph gives it, and what came out is read back.
What a version can do is found with `hasattr`, and flags are remembered by name, because their numbers differ between
versions.
"""

import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.backends import backend_module
from engines.build_progress import BuildProgress
from engines.compiler import Compiled, GpuOptions
from engines.layer_dump import Layer, layers_from_inspector, layers_from_log, types_of_convolutions
from engines.layer_types import CONSTRAINTS, asked_types, check_types
from engines.machine import Gpu, ask_driver
from engines.plan import HARDWARE_COMPATIBILITY
from engines.tensorrt_config import flags, make_config, profile_shapes
from engines.tensorrt_log import recorder
from engines.tensorrt_network import describe_tensor, parse_network
from engines.timing_cache import TimingCache, cache_for
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Graph

__all__ = ["TensorRTCompiler", "current_device"]

_ACTIVATIONS = "Total Activation Memory: "


class TensorRTCompiler:
    """Compiles ONNX files to plans with one of the two modules.

    `precision` is what the graphs are called (fp32, fp16, int8), `caches` the folder of default timing caches; without
    them neither is checked or kept. Raises EngineError where the module is missing or there is no GPU to build for,
    InputError for options that cannot be.
    """

    def __init__(
        self, backend: str, options: GpuOptions, precision: str | None = None, caches: Path | None = None
    ) -> None:
        _check_options(options)
        self._backend, self._options, self._precision = backend, options, precision
        self._gpu = _gpu_to_build_on(backend, options)
        self._trt: Any = backend_module(backend)
        self._cache = cache_for(options.timing_cache, caches, backend, self._trt.__version__, self._gpu)

    @property
    def capability(self) -> str:
        """The compute capability that is built for."""
        if self._options.capability is not None:
            return self._options.capability
        assert self._gpu is not None  # or the constructor had raised
        return self._gpu.capability

    def __call__(self, path: Path, graph: Graph, engine: Path) -> Compiled:
        """Compile the ONNX file `path` into the plan `engine`.

        Raises EngineError where TensorRT refuses, or computes in another precision than the graph asks for.
        """
        progress = BuildProgress(f"{engine.stem} for {self.capability}")

        def build() -> Compiled:
            with current_device(self._gpu):
                return self._compile(path, graph, engine, progress)

        return progress.run(build)

    def _compile(self, path: Path, graph: Graph, engine: Path, progress: BuildProgress) -> Compiled:
        trt, log = self._trt, recorder(self._trt)
        builder = trt.Builder(log)
        if builder is None:
            raise EngineError(f"{self._backend} gives no builder here{log.last_error()}.")
        network = parse_network(trt, builder, path, log)
        config = make_config(trt, self._backend, builder, graph, self._options, log)
        notes = _use_cache(config, self._cache)
        progress.attach(trt, config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(f"{self._backend} {trt.__version__} cannot build {path}{log.last_error()}.")
        asked = asked_types(trt, network)
        layers, found = self._read_back(plan, asked, log)
        # a stem is a layer or two, which may all have been kept in a higher precision
        precision = self._precision if engine.stem != "stem" or self._precision == "fp32" else None
        notes += check_types(path.name, precision, asked, found, self._options.precision_constraints)
        engine.write_bytes(memoryview(plan))
        cache_sha256 = self._cache.write(_timings(config)) if self._cache else None
        build = {
            **self._facts(network, config, graph),
            "layers": [asdict(layer) for layer in layers],
            "convolutions": dict(Counter(found.values())),
            "convolution_types": {name: {"asked": asked[name], "found": found[name]} for name in asked},
            "activation_bytes": _activation_bytes(log.messages),
            "timing_cache_sha256": cache_sha256,
        }
        return Compiled(trt.__version__, self._machine(), build, _summary(build, notes))

    def _read_back(self, plan: Any, convolutions: Iterable[str], log: Any) -> tuple[list[Layer], dict[str, str]]:
        """The plan's layers and the type of each convolution: of what the inspector tells, where the plan can be
        loaded, and what the builder printed, that which knows more of them.
        """
        told = [layers_from_log(log.messages)]
        if self._gpu is not None:
            told.insert(0, self._inspected(plan, log))
        both = [(layers, types_of_convolutions(layers, convolutions)) for layers in told]
        return min(both, key=lambda one: list(one[1].values()).count("unknown"))

    def _inspected(self, plan: Any, log: Any) -> list[Layer]:
        trt = self._trt
        runtime = trt.Runtime(log)
        runtime.engine_host_code_allowed = self._options.version_compatible
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            return []
        inspector = engine.create_engine_inspector()
        return layers_from_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def _machine(self) -> dict[str, Any]:
        """What the plan is bound to, flat, as `engines.plan` compares it."""
        gpu = self._gpu
        return {
            "os": platform.system(),
            "architecture": platform.machine(),
            "gpu": gpu.name if gpu else None,
            "capability": self.capability,
            "multiprocessors": gpu.multiprocessors if gpu else None,
            "driver": gpu.driver if gpu else None,
            "hardware_compatibility": self._options.hardware_compatibility,
            "version_compatible": self._options.version_compatible,
        }

    def _facts(self, network: Any, config: Any, graph: Graph) -> dict[str, Any]:
        trt, options = self._trt, self._options
        inputs = [describe_tensor(network.get_input(i)) for i in range(network.num_inputs)]
        outputs = [describe_tensor(network.get_output(i)) for i in range(network.num_outputs)]
        profiles = {
            name: dict(zip(("min", "opt", "max"), map(list, shapes), strict=True))
            for name, shapes in profile_shapes(graph, options).items()
        }
        return {
            "options": {**asdict(options), "timing_cache": str(options.timing_cache) if options.timing_cache else None},
            "optimization_level": config.builder_optimization_level,
            "flags": flags(trt.BuilderFlag, config.get_flag),
            "network_flags": flags(trt.NetworkDefinitionCreationFlag, network.get_flag),
            "profiles": profiles,
            "io": inputs + outputs,
            "module": trt.__name__,
            "onnx_parser_version": trt.get_nv_onnx_parser_version()
            if hasattr(trt, "get_nv_onnx_parser_version")
            else None,
            "cuda_driver": self._gpu.driver if self._gpu else None,
        }


@contextmanager
def current_device(gpu: Gpu | None) -> Iterator[None]:
    """Make the GPU that is built on CUDA's current device in this thread; TensorRT measures on that one.

    Device 0 is current by itself, and building on it needs no pycuda.
    """
    if gpu is None or gpu.index == 0:
        yield
        return
    from engines.cuda import CudaDevice

    device = CudaDevice(gpu)
    try:
        with device.thread():
            yield
    finally:
        device.close()


def _check_options(options: GpuOptions) -> None:
    batches = (options.min_batches, options.opt_batches, options.max_batches)
    if not 1 <= batches[0] <= batches[1] <= batches[2]:
        raise InputError(f"Split batches of at least, best and at most {batches} cannot be: give them in rising order.")
    if options.capability is not None and not re.fullmatch(r"\d+\.\d", options.capability):
        raise InputError(f"{options.capability!r} is no compute capability: write it as 8.9.")
    for given, known in (
        (options.hardware_compatibility, HARDWARE_COMPATIBILITY),
        (options.precision_constraints, CONSTRAINTS),
    ):
        if given not in known:
            raise InputError(f"{given!r} is none of {', '.join(known)}: choose one of them.")


def _gpu_to_build_on(backend: str, options: GpuOptions) -> Gpu | None:
    """The GPU at hand, or None where a plan is built ahead of time."""
    if options.capability is not None and backend == "tensorrt-rtx":
        return None
    gpus, problems = ask_driver()
    for gpu in gpus:
        if gpu.index == options.device:
            return gpu
    if gpus:
        have = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus)
        raise InputError(f"There is no GPU {options.device} here to build on: choose --device from {have}.")
    ahead = (
        "name the GPU to build for, as in --compute-capability 8.9"
        if backend == "tensorrt-rtx"
        else "build on the machine that the engine is for, or use --backend tensorrt-rtx or onnxruntime"
    )
    raise EngineError(f"{backend} has no NVIDIA GPU with a driver here to build for ({'; '.join(problems)}): {ahead}.")


def _use_cache(config: Any, cache: TimingCache | None) -> list[str]:
    """Give the build its cache. Raises EngineError where TensorRT does not take one that the user named."""
    if cache is None:
        return []
    contents, notes = cache.read()
    timings = config.create_timing_cache(contents)
    if timings is not None and config.set_timing_cache(timings, False):
        return notes
    if cache.named:
        raise EngineError(f"TensorRT does not take the timing cache {cache.path}: name another, or delete it.")
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return ["timing cache begun anew (TensorRT does not take the old one)"]


def _timings(config: Any) -> bytes:
    return bytes(memoryview(config.get_timing_cache().serialize()))


def _activation_bytes(messages: list[str]) -> int | None:
    return next((int(m.split()[-2]) for m in messages if m.startswith(_ACTIVATIONS)), None)


def _summary(build: Mapping[str, Any], notes: list[str]) -> str:
    parts = [f"{count} convolution{'s' * (count > 1)} {kind}" for kind, count in build["convolutions"].items()]
    if build["activation_bytes"] is not None:
        parts.append(f"{build['activation_bytes'] / 2**20:.0f} MiB activations a context")
    return ", ".join(parts) + "".join(f"; {note}" for note in notes)
