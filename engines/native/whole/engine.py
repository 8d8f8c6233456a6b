"""A whole network compiled natively, behind the interface that all backends share."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.host import HostBuffer, HostContext, HostEngine, host_array
from engines.interface import Buffer
from engines.native import building
from engines.native.building import held_against_onnxruntime, mapped_weights
from engines.native.whole.context import BoundNetwork
from engines.native.whole.plan import NetworkPlan, read_network_plan
from splitmerge.package import TensorInfo

__all__ = ["NetworkContext", "NetworkEngine", "check_network"]


class NetworkContext(HostContext):
    """Maps and threads for one frame at a time. Every call returns when its work is done."""

    def __init__(self, plan: NetworkPlan, weights: NDArray[np.float32], threads: int) -> None:
        self._plan = plan
        self._bound: BoundNetwork | None = BoundNetwork(plan, weights, threads)

    @property
    def bound(self) -> BoundNetwork:
        """What is called, for profiles."""
        assert self._bound is not None, "it was closed"
        return self._bound

    def enqueue(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        bound = self.bound
        frames, labels = host_array(feeds[self._plan.input]), host_array(outputs[self._plan.output])
        shapes = (len(frames), *bound.frame.shape), (len(frames), *bound.labels.shape)
        types = frames.dtype == np.uint8 and labels.dtype == np.uint8
        if not types or (frames.shape, labels.shape) != shapes:
            given = f"{frames.dtype} {frames.shape} for {labels.dtype} {labels.shape}"
            raise ValueError(f"A network was given {given}: it takes uint8 {shapes[0]} for uint8 {shapes[1]}.")
        for frame, result in zip(frames, labels, strict=True):
            bound.frame[:] = frame
            bound.run()
            result[:] = bound.labels

    def close(self) -> None:
        if self._bound is not None:
            self._bound.close()
        self._bound = None


class NetworkEngine(HostEngine):
    """A plan and its weights, whose contexts have `threads` threads each.

    Raises EngineError where one of them cannot be read, or they do not belong together.
    """

    def __init__(self, plan: bytes, weights: Path, threads: int) -> None:
        self._weights = mapped_weights(weights, "network")
        self._plan, self._threads = read_network_plan(plan, len(self._weights)), threads
        super().__init__()
        size = self._plan.height, self._plan.width
        channels = self._plan.maps[self._plan.first.map].channels
        self.inputs = (TensorInfo(self._plan.input, "uint8", (None, *size, channels)),)
        self.outputs = (TensorInfo(self._plan.output, "uint8", (None, *size)),)

    @property
    def plan(self) -> NetworkPlan:
        """What is computed."""
        return self._plan

    def create_context(self) -> NetworkContext:
        return NetworkContext(self._plan, self._weights, self._threads)


def check_network(path: Path, engine: NetworkEngine) -> str:
    """Hold the labels of one frame of noise against ONNX Runtime's; says in words what came of it.

    Raises EngineError where more differ than near ties explain.
    """
    plan = engine.plan
    if 4 * max(one.channels * one.height * one.width for one in plan.maps) > building.CHECKED_BYTES:
        return f"not checked: frames of {plan.height}x{plan.width} are too large to run in one piece"
    shape = 1, plan.height, plan.width, plan.maps[plan.first.map].channels
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = np.empty(shape[:3], np.uint8)
    context = engine.create_context()
    try:
        context.enqueue({plan.input: HostBuffer(frames)}, {plan.output: HostBuffer(labels)})
    finally:
        context.close()
    return held_against_onnxruntime(path, {plan.input: frames}, plan.output, labels)
