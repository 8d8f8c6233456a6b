"""ONNX Runtime on the CPU: the backend that runs everywhere.

Memory, measured with an exported SMP-18 of width 16 at 512x1024 on two cores, ONNX Runtime 1.31: MiB above the loaded
session, for the whole graph / the stem and then one split batch of the trunk.

    arena and memory pattern, the default            1873 / 307
    arena without pattern                            1073 / 178
    one arena for all, growing by doubling           1073 / 118
    one arena for all, growing by what is asked      1498 / 113
    no arena                                          797 / 269   15 % slower: new pages in every run
    no arena, malloc told to map from 512 KiB on      771 /  99   60 % slower, and a setting of the whole process

The pattern reserves a second time what the arena already holds, so it is off. Stem and trunk never need their
activations at the same time, so sharing an arena saves the smaller of the two. How it grows matters less: by what is
asked, whole frames took 118 MiB with one context and 151 to 184 with two; by doubling 122 and 188. The whole graph has
an arena of its own, which doubles.

Threads do not spin while they wait. With other work on the same two cores, as decoding and encoding are, spinning took
7.4 to 8.0 s a frame and waiting asleep 5.3 to 7.3 s. On idle cores (256x512) one context took 0.99 s asleep and 1.04 s
spinning, two took 0.87 s and 0.77 s: less of a gain than what spinning costs beside other work.

Networks of one graph that take some milliseconds are another matter (FCN8s-18 of width 16, 256x512: 11.4 ms, 8.0 with
the pattern, 7.4 with threads that spin while a run lasts as well). Such an engine may be `roomy`: it has both.

Contexts have sessions and arenas of their own. Two that shared them took 130 ms a frame (width 16, 128x256, form for
CPUs) for some frames and 205 for the next, without waiting more or asking for pages: an arena hands out first what was
given back last, which is in the other core's cache. Weights lie in a file of their own that sessions map into memory:
they are there once for all contexts, processes and cameras. Two sessions of a form for CPUs with 294 MB of them open in
0.06 s (to hash them takes longer) and are 706 MiB resident, 406 with what both map counted once; with the weights in
the graph it was 1.5 s and 1,035 MiB, for a moment 1,193.
"""

import functools
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from engines.compiler import Compiled
from engines.host import HostContext, HostEngine, host_array
from engines.interface import Buffer
from engines.machine import cpu_identity
from engines.sidecar import Sidecar, weights_beside
from splitmerge.errors import EngineError
from splitmerge.package import Graph, TensorInfo

__all__ = ["OnnxRuntimeContext", "OnnxRuntimeEngine", "compile_onnxruntime", "cores", "refusal_here", "threads_of_each"]

PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_GROW_AS_REQUESTED = 1
_LARGE_WEIGHT = 65_536
"""Bytes from which on a weight is mapped."""


class OnnxRuntimeContext(HostContext):
    """One caller of the session. ONNX Runtime has no streams on a CPU: every call returns when its work is done."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._binding = session.io_binding()

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        for name, buffer in feeds.items():
            array = host_array(buffer)
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, buffer in outputs.items():
            array = host_array(buffer)
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # its own errors share no base but Exception
            raise EngineError(f"ONNX Runtime could not run the engine: {_last_line(error)}") from error


class OnnxRuntimeEngine(HostEngine):
    """A session on the CPU for each of `contexts` contexts, with `threads` threads each; further contexts share them.

    With `shared_arena` the first has the arena that the process has for all such engines. One that is `roomy` plans the
    memory of a whole run, which takes up to twice as much, and its threads spin while a run lasts. `weights` is the
    folder of the file that the graph's weights are in, if it does not hold them itself; that file may be replaced
    meanwhile, but not written to.
    """

    def __init__(
        self,
        graph: bytes,
        threads: int,
        shared_arena: bool,
        roomy: bool = False,
        contexts: int = 1,
        weights: Path | None = None,
    ) -> None:
        self._sessions = [
            _loaded(graph, _options(threads, roomy), shared_arena and index == 0, weights) for index in range(contexts)
        ]
        self._next = itertools.cycle(self._sessions)
        super().__init__()
        self.inputs = tuple(_tensor(value) for value in self._sessions[0].get_inputs())
        self.outputs = tuple(_tensor(value) for value in self._sessions[0].get_outputs())

    def create_context(self) -> OnnxRuntimeContext:
        return OnnxRuntimeContext(next(self._next))


def compile_onnxruntime(path: Path, graph: Graph, engine: Path) -> Compiled:
    """Optimise the ONNX file `path` for this machine and write the result to `engine`, large weights beside it."""
    options = _options(threads=1)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", weights_beside(engine).name
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_LARGE_WEIGHT)
    )
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(engine)
    _session(path.read_bytes(), options)
    return Compiled(onnxruntime.__version__, cpu_identity(), {"providers": [PROVIDER]}, "optimised for this CPU")


def refusal_here(sidecar: Sidecar) -> str | None:
    """Why an engine of this backend is not for this machine and this ONNX Runtime; None where it is."""
    if sidecar.backend != "onnxruntime":
        return f"it is an engine for {sidecar.backend}, not for onnxruntime"
    if sidecar.version != onnxruntime.__version__:
        return f"it was built with ONNX Runtime {sidecar.version} and {onnxruntime.__version__} is installed"
    here = cpu_identity()
    for key, value in here.items():
        built = sidecar.machine.get(key)
        if built != value:
            return f"it was built on a machine with another {key.replace('_', ' ')} ({built}) than this one ({value})"
    return None


def threads_of_each(contexts: int, threads: int | None) -> int:
    """Threads of each of so many contexts, its caller's among them: `threads`, or the cores shared out among them."""
    return threads or max(1, cores() // contexts)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _options(threads: int, roomy: bool = False) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = roomy
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(roomy)))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs
    options.log_severity_level = _ERRORS_ONLY  # it would warn that an optimised graph is bound to this machine
    return options


def _session(graph: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[PROVIDER])
    except Exception as error:  # its own errors share no base but Exception
        raise EngineError(f"ONNX Runtime {onnxruntime.__version__} refuses the graph: {_last_line(error)}") from error
    if session.get_providers() != [PROVIDER]:
        raise EngineError(
            f"ONNX Runtime runs the graph on {', '.join(session.get_providers())} and not on {PROVIDER} as asked: "
            "install a build of onnxruntime that has it."
        )
    return session


def _loaded(
    graph: bytes, options: onnxruntime.SessionOptions, shared_arena: bool, weights: Path | None
) -> onnxruntime.InferenceSession:
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # done when it was built
    if shared_arena:
        _register_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    return _session(graph, options)


@functools.cache
def _register_arena() -> None:
    """Give the process one arena that sessions may share. ONNX Runtime keeps it until the process ends."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(
        memory, onnxruntime.OrtArenaCfg({"arena_extend_strategy": _GROW_AS_REQUESTED})
    )


def _tensor(value: onnxruntime.NodeArg) -> TensorInfo:
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    return TensorInfo(value.name, "float32" if dtype == "float" else dtype, shape)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
