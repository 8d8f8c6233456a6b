"""A trunk compiled natively, behind the interface that all backends share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engines.compiler import Compiled
from engines.host import HostBuffer, HostDevice, host_array
from engines.interface import Buffer
from engines.machine import cpu_identity
from engines.native.jit import compiled, lanes_here
from engines.native.plan import VERSION, Plan, read_plan, write_plan
from engines.native.section import Call, Section, Shared
from engines.onnxruntime_engine import PROVIDER
from engines.sidecar import Sidecar, weights_beside
from splitmerge.errors import EngineError
from splitmerge.package import Graph, TensorInfo

__all__ = ["NativeContext", "NativeEngine", "compile_native", "native_refusal"]


_NEAR_TIES = 1e-3
"""The share of labels that rounding may change: the two largest logits of such a pixel are all but equal."""

_CHECKED_BYTES = 300_000_000
"""What a map may take for ONNX Runtime to compute a split batch in one piece. SMP-18 of width 64 has 268 MB at
1024x2048."""


class NativeContext:
    """One thread's maps and calls. Every call returns when its work is done."""

    def __init__(self, plan: Plan, weights: NDArray[np.float32]) -> None:
        kernels = compiled(plan.lanes, frozenset(step.kernel(plan.lanes) for step in plan.steps))
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

    def prepare(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        self.enqueue(feeds, outputs)

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        np.copyto(host_array(buffer), array)

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

    def read(self, buffer: Buffer) -> NDArray[Any]:
        return host_array(buffer)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        self._section = None


class NativeEngine:
    """A plan and its weights, mapped from a file, so that all contexts and processes have them once.

    Raises EngineError where one of them cannot be read, or they do not belong together.
    """

    def __init__(self, plan: bytes, weights: Path) -> None:
        try:
            self._weights = np.memmap(weights, np.float32, "r")
        except (OSError, ValueError) as error:
            raise EngineError(f"{weights} are no weights of a compiled trunk ({error}): build it again.") from None
        self._plan = read_plan(plan, len(self._weights))
        self.device = HostDevice()
        size = self._plan.height, self._plan.width
        self.inputs = (TensorInfo(self._plan.input, "float32", (None, self._plan.channels, *size)),)
        self.outputs = (TensorInfo(self._plan.output, "uint8", (None, *size)),)

    @property
    def plan(self) -> Plan:
        """What is computed."""
        return self._plan

    @property
    def context_bytes(self) -> int | None:
        return None

    @property
    def batches(self) -> tuple[int, int] | None:
        return None

    def create_context(self) -> NativeContext:
        return NativeContext(self._plan, self._weights)

    def close(self) -> None:
        pass


def compile_native(path: Path, graph: Graph, engine: Path) -> Compiled:
    """Compile the trunk in the ONNX file `path` for this processor. Raises EngineError where it has other steps than
    convolutions, sums and ReLU between splits."""
    from engines.native.reading import read_trunk  # with onnx, which running does without

    weights, lanes = weights_beside(engine), lanes_here()
    try:
        plan = write_plan(read_trunk(path), lanes, engine, weights)
    except EngineError as error:
        raise EngineError(f"{path} has no native form: {error}.") from None
    try:
        checked = _checked(path, NativeEngine(engine.read_bytes(), weights), plan)
    except RuntimeError as error:  # LLVM's
        raise EngineError(f"LLVM does not compile {path} ({error}): build another form, and report this.") from None
    tiled = sum(step.tile is not None for step in plan.steps)
    notes = f"{tiled} of {len(plan.steps)} convolutions by minimal filtering, vectors of {plan.lanes}; {checked}"
    machine = cpu_identity() | {"native": VERSION, "lanes": plan.lanes}
    return Compiled(llvmlite.__version__, machine, {"form": "native", "checked": checked}, notes)


def _checked(path: Path, engine: NativeEngine, plan: Plan) -> str:
    """Hold the labels of one split batch of noise against ONNX Runtime's; says in words what came of it.

    Raises EngineError where more differ than near ties explain.
    """
    if 4 * plan.height * plan.width * max(step.out for step in plan.steps) > _CHECKED_BYTES:
        return f"not checked: maps of {plan.height}x{plan.width} are too large to run in one piece"
    shape = 1, plan.channels, plan.height, plan.width
    features = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    labels = np.empty((1, plan.height, plan.width), np.uint8)
    context = engine.create_context()
    context.enqueue({plan.input: HostBuffer(features)}, {plan.output: HostBuffer(labels)})
    session = onnxruntime.InferenceSession(path, providers=[PROVIDER])
    (expected,) = session.run([plan.output], {plan.input: features})
    differ = int((labels != expected).sum()) if labels.shape == expected.shape else labels.size
    if differ > _NEAR_TIES * labels.size:
        raise EngineError(
            f"Compiled natively, {path} gives {differ} of {labels.size} pixels other labels than ONNX Runtime: build "
            "another form, and report this."
        )
    return f"{differ} of {labels.size} labels of noise differ from ONNX Runtime's"


def native_refusal(sidecar: Sidecar) -> str | None:
    """Why a natively compiled engine is not for this machine; None where it is."""
    here = cpu_identity() | {"native": VERSION}
    for key, value in here.items():
        if sidecar.machine.get(key) != value:
            named = {"native": "version of the native form", "cpu_features": "set of CPU features"}.get(key, key)
            return f"it was built for another {named} ({sidecar.machine.get(key)}) than this one ({value})"
    return None
