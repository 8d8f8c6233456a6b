"""ONNX Runtime's own profile of an engine: what each operator took, and the shapes that it ran on."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.profiling.costs import Cost, Tensor, cost_of

__all__ = ["Operator", "Profiled", "batches_of", "operators_of"]


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
        self._session = onnxruntime.InferenceSession(str(engine), options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(feeds)), strict=True))

    def finish(self) -> list[dict[str, Any]]:
        """The profile's events in the order of time."""
        events: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text())
        return sorted(events, key=lambda event: float(event.get("ts", 0)))


def operators_of(stage: str, events: list[dict[str, Any]], frames: int, per_frame: int) -> list[Operator]:
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
        cost = _cost(counted[-1]["args"])
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


def _cost(arguments: Mapping[str, Any]) -> Cost:
    inputs, outputs = (_tensors(arguments.get(f"{end}_type_shape", [])) for end in ("input", "output"))
    return cost_of(arguments["op_name"], inputs, outputs)


def _tensors(values: list[dict[str, list[int]]]) -> list[Tensor]:
    return [Tensor(dtype, tuple(map(int, shape))) for value in values for dtype, shape in value.items()]


def batches_of(array: NDArray[Any], axis: int, begin: int, end: int) -> NDArray[Any]:
    """Split batches `begin` to `end` of what a stem gives, whichever axis counts them."""
    return np.ascontiguousarray(np.take(array, range(begin, end), axis))
