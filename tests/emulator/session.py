"""A plan in memory: an ONNX Runtime session, and what all contexts of an engine share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from emulator.common import ILogger
from emulator.device import DeviceState
from emulator.enums import DataType, nptype
from emulator.machine import Machine
from emulator.plan import Plan, Tensor

__all__ = ["EngineState"]


class EngineState:
    """What the contexts of an engine share."""

    def __init__(self, plan: Plan, graph: bytes, device: DeviceState, machine: Machine, logger: ILogger) -> None:
        self.plan, self.device, self.machine, self.logger = plan, device, machine, logger
        self.graph = graph
        self.tensors = {tensor.name: tensor for tensor in plan.tensors}
        self.generation = device.generation
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._output_shapes: dict[Any, dict[str, tuple[int, ...]]] = {}

    @property
    def label(self) -> str:
        return self.plan.name

    def inputs(self) -> list[Tensor]:
        return [tensor for tensor in self.plan.tensors if tensor.is_input]

    def outputs(self) -> list[Tensor]:
        return [tensor for tensor in self.plan.tensors if not tensor.is_input]

    def dtype(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(nptype(DataType[self.tensors[name].dtype]))
        return dtype

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [tensor.name for tensor in self.outputs()]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of all outputs for these shapes of inputs; found by running zeros once where the graph is dynamic."""
        if all(-1 not in tensor.shape for tensor in self.outputs()):
            return {tensor.name: tuple(tensor.shape) for tensor in self.outputs()}
        key = tuple(sorted(shapes.items()))
        if key not in self._output_shapes:
            zeros = {name: np.zeros(shape, self.dtype(name)) for name, shape in shapes.items()}
            self._output_shapes[key] = {name: array.shape for name, array in self.run(zeros).items()}
        return self._output_shapes[key]
