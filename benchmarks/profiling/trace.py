"""ONNX Runtime's own profile of an engine: what each operator took, and the shapes that it ran on.

The profile names no weights that ONNX Runtime has packed for its kernels; their shapes are the engine's file's.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.profiling.costs import Cost, Tensor, cost_of

__all__ = ["Operator", "Profiled", "batches_of", "nodes_of", "operators_of", "with_packed"]


Nodes = Mapping[str, Sequence[Tensor | None]]


@dataclass(frozen=True)
class Operator:
    """One node of an engine: `calls` and `ms` a frame, and what one frame's calls do."""

    stage: str
    name: str
    kind: str
    calls: int
    ms: float
    operations: int
    bytes: int


class Profiled:
    """An engine's file in a session with the settings that engines are loaded with and a profile, kept in `folder`.

    `finish` ends it, once.
    """

    def __init__(self, engine: Path, folder: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / engine.stem)
        self._engine = engine
        self._session = onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(feeds)), strict=True))

    def operators(self, stage: str, frames: int, per_frame: int) -> list["Operator"]:
        """`operators_of` this engine's profile, which it ends."""
        nodes = nodes_of(onnx.load(self._engine, load_external_data=False))
        return operators_of(stage, self.finish(), nodes, frames, per_frame)

    def finish(self) -> list[dict[str, Any]]:
        """The profile's events in the order of time."""
        events: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text())
        return sorted(events, key=lambda event: float(event.get("ts", 0)))


def operators_of(stage: str, events: list[dict[str, Any]], nodes: Nodes, frames: int, per_frame: int) -> list[Operator]:
    """Operators of a stage that runs `per_frame` times a frame; events before those of the last `frames` are left out.

    `ms` is the median of the runs times their number in a frame.
    """
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs.setdefault((event["args"]["node_index"], event["name"]), []).append(event)
    operators = []
    for (_, name), calls in runs.items():
        counted = calls[-frames * per_frame :]
        cost = _cost(counted[-1]["args"], nodes.get(name.removesuffix("_kernel_time"), []))
        operators.append(
            Operator(
                stage,
                name.removesuffix("_kernel_time"),
                counted[-1]["args"]["op_name"],
                per_frame,
                statistics.median(float(call["dur"]) for call in counted) / 1e3 * per_frame,
                cost.operations * per_frame,
                cost.bytes * per_frame,
            )
        )
    return operators


def nodes_of(model: onnx.ModelProto) -> Nodes:
    """Of each named node its inputs in order: a weight's type and shape, None for what is computed."""
    weights = {tensor.name: _weight(tensor) for tensor in model.graph.initializer}
    return {node.name: [weights.get(name) for name in node.input if name] for node in model.graph.node if node.name}


def _weight(tensor: onnx.TensorProto) -> Tensor:
    dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    return Tensor(dtype, tuple(tensor.dims))


def _cost(arguments: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> Cost:
    seen, outputs = (_tensors(arguments.get(f"{end}_type_shape", [])) for end in ("input", "output"))
    return cost_of(arguments["op_name"], with_packed(seen, inputs), outputs)


def with_packed(seen: Sequence[Tensor], inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """The inputs `seen` in a profile, with the weights that are missing there put in their places."""
    left, complete = list(seen), []
    for index, weight in enumerate(inputs):
        computed = sum(other is None for other in inputs[index + 1 :])  # which are all among those that are left
        if weight is None or (left and left[0] == weight and len(left) > computed):
            complete.append(left.pop(0))
        else:
            complete.append(weight)
    return [*complete, *left]


def _tensors(values: list[dict[str, list[int]]]) -> list[Tensor]:
    return [Tensor(dtype, tuple(map(int, shape))) for value in values for dtype, shape in value.items()]


def batches_of(array: NDArray[Any], axis: int, begin: int, end: int) -> NDArray[Any]:
    """Split batches `begin` to `end` of what a stem gives, whichever axis counts them."""
    return np.ascontiguousarray(np.take(array, range(begin, end), axis))
