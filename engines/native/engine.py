"""A trunk compiled natively, behind the interface that all backends share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import llvmlite
import numpy as np
from numpy.typing import NDArray

from engines.compiler import Compiled
from engines.host import HostBuffer, HostContext, HostEngine, host_array
from engines.interface import Buffer
from engines.machine import cpu_identity
from engines.native import building
from engines.native.building import held_against_onnxruntime, mapped_weights
from engines.native.jit import Labels, compiled, lanes_here
from engines.native.plan import VERSION, Plan, read_plan, write_plan
from engines.native.section import Call, Section, Shared
from engines.onnxruntime_engine import cores
from engines.sidecar import Sidecar, weights_beside
from splitmerge.errors import EngineError
from splitmerge.package import Graph, TensorInfo

__all__ = ["NativeContext", "NativeEngine", "compile_native", "native_refusal"]


class NativeContext(HostContext):
    """One thread's maps and calls. Every call returns when its work is done."""

    def __init__(self, plan: Plan, weights: NDArray[np.float32]) -> None:
        kernels = compiled(plan.lanes, frozenset([Labels(), *(step.kernel(plan.lanes) for step in plan.steps)]))
        filled = -(-plan.channels // plan.lanes) * plan.lanes
        shared = Shared.of(plan, kernels, weights)
        self._plan = plan
        self._section: Section | None = Section(
            plan, plan.steps, (plan.height, plan.width), {plan.input: filled}, shared
        )

    def observe(self, wrapped: Callable[[str, Call], Call]) -> None:
        """`Section.observe`, for profiles."""
        assert self._section is not None, "it was closed"
        self._section.observe(wrapped)

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        plan, section = self._plan, self._section
        features, labels = host_array(feeds[plan.input]), host_array(outputs[plan.output])
        size = plan.height, plan.width
        shapes = (len(features), plan.channels, *size), (len(features), *size)
        types = features.dtype == np.float32 and labels.dtype == np.uint8
        if not types or (features.shape, labels.shape) != shapes:
            given = f"{features.dtype} {features.shape} for {labels.dtype} {labels.shape}"
            raise ValueError(f"A trunk was given {given}: it takes float32 {shapes[0]} for uint8 {shapes[1]}.")
        assert section is not None, "it was closed"
        for one, result in zip(features, labels, strict=True):
            section.fill(plan.input, one.transpose(1, 2, 0))
            section.run()
            result[:] = section.labels

    def close(self) -> None:
        self._section = None


class NativeEngine(HostEngine):
    """A plan and its weights, mapped from a file, so that all contexts and processes have them once.

    Raises EngineError where one of them cannot be read, or they do not belong together.
    """

    def __init__(self, plan: bytes, weights: Path) -> None:
        self._weights = mapped_weights(weights, "trunk")
        self._plan = read_plan(plan, len(self._weights))
        super().__init__()
        size = self._plan.height, self._plan.width
        self.inputs = (TensorInfo(self._plan.input, "float32", (None, self._plan.channels, *size)),)
        self.outputs = (TensorInfo(self._plan.output, "uint8", (None, *size)),)

    @property
    def plan(self) -> Plan:
        """What is computed."""
        return self._plan

    def create_context(self) -> NativeContext:
        return NativeContext(self._plan, self._weights)


def compile_native(path: Path, graph: Graph, engine: Path) -> Compiled:
    """Compile the trunk or the whole network in the ONNX file `path` for this processor: `engine` is named after the
    part. Raises EngineError where it has steps that are none of those that are compiled natively."""
    make = _compiled_network if engine.stem == "model" else _compiled_trunk
    try:
        checked, notes = make(path, engine, weights_beside(engine), lanes_here())
    except RuntimeError as error:  # LLVM's
        raise EngineError(f"LLVM does not compile {path} ({error}): build another form, and report this.") from None
    machine = cpu_identity() | {"native": VERSION, "lanes": lanes_here()}
    notes = f"{notes} by minimal filtering, vectors of {lanes_here()}; {checked}"
    return Compiled(llvmlite.__version__, machine, {"form": "native", "checked": checked}, notes)


def _compiled_trunk(path: Path, engine: Path, weights: Path, lanes: int) -> tuple[str, str]:
    """What came of holding it against ONNX Runtime, and what it is made of, in words."""
    from engines.native.reading import read_trunk  # with onnx, which running does without

    with _refusing(path):
        plan = write_plan(read_trunk(path), lanes, engine, weights)
    tiled = sum(step.tile is not None for step in plan.steps)
    checked = _checked(path, NativeEngine(engine.read_bytes(), weights), plan)
    return checked, f"{tiled} of {len(plan.steps)} convolutions"


def _compiled_network(path: Path, engine: Path, weights: Path, lanes: int) -> tuple[str, str]:
    from engines.native.whole.engine import NetworkEngine, check_network
    from engines.native.whole.plan import write_network_plan
    from engines.native.whole.reading import read_network

    with _refusing(path):
        plan = write_network_plan(read_network(path), lanes, engine, weights)
    convolutions = [step for step in plan.steps if step.kind == "convolution"]
    tiled = sum(step.tile is not None for step in convolutions)
    checked = check_network(path, NetworkEngine(engine.read_bytes(), weights, cores()))
    return checked, f"{tiled} of {len(convolutions)} convolutions"


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say of which graph it is that something is not compiled natively."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{path} has no native form: {error}.") from None


def _checked(path: Path, engine: NativeEngine, plan: Plan) -> str:
    """Hold the labels of one split batch of noise against ONNX Runtime's; says in words what came of it.

    Raises EngineError where more differ than near ties explain.
    """
    if 4 * plan.height * plan.width * max(step.out for step in plan.steps) > building.CHECKED_BYTES:
        return f"not checked: maps of {plan.height}x{plan.width} are too large to run in one piece"
    shape = 1, plan.channels, plan.height, plan.width
    features = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    labels = np.empty((1, plan.height, plan.width), np.uint8)
    context = engine.create_context()
    context.enqueue({plan.input: HostBuffer(features)}, {plan.output: HostBuffer(labels)})
    return held_against_onnxruntime(path, {plan.input: features}, plan.output, labels)


def native_refusal(sidecar: Sidecar) -> str | None:
    """Why a natively compiled engine is not for this machine; None where it is."""
    here = cpu_identity() | {"native": VERSION}
    for key, value in here.items():
        if sidecar.machine.get(key) != value:
            named = {"native": "version of the native form", "cpu_features": "set of CPU features"}.get(key, key)
            return f"it was built for another {named} ({sidecar.machine.get(key)}) than this one ({value})"
    return None
