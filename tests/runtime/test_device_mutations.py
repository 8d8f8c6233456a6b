"""The emulator is worth its trouble only if it catches what a GPU would: each mutation of the runtime must be noticed,
by a broken rule, or by labels that differ."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from emulator import EmulatedDevice, Emulator, RuleBroken

import runtime.lane
from engines.cuda import CudaBuffer, CudaDevice, CudaStream
from engines.tensorrt_context import Execution, TensorRTContext
from engines.tensorrt_engine import TensorRTEngine
from runtime.executor import Executor
from runtime.lane import Lane, Worker
from splitmerge.package import Package

DEVICES = [EmulatedDevice("First"), EmulatedDevice("Second")]
SECONDS = 0.002
"""An execution takes long enough for its result to be missing where nobody waits for it."""

Mutation = Callable[[pytest.MonkeyPatch], None]


def run(package: Package, frames: np.ndarray, expected: list[np.ndarray]) -> list[str]:
    """What is wrong with a run on two devices of two contexts: rules broken, errors, labels that differ."""
    wrong = []
    try:
        with Emulator(DEVICES, work=SECONDS):
            try:
                with Executor(package, backend="tensorrt", contexts=2, devices=(0, 1)) as executor:
                    for frame, labels in zip(frames, expected, strict=True):
                        segmented, stats = executor.measure(frame)
                        wrong += stats.lost
                        if not np.array_equal(segmented, labels):
                            wrong.append("labels differ")
            except Exception as error:
                wrong.append(str(error))
    except RuleBroken as broken:
        wrong += str(broken).splitlines()
    return wrong


def test_the_runtime_as_it_is_breaks_nothing(package: Package, frames: np.ndarray, expected: list[np.ndarray]) -> None:
    assert run(package, frames, expected) == []


def without(owner: type, method: str, result: Any = None) -> Mutation:
    """The method does nothing."""
    return lambda patch: patch.setattr(owner, method, lambda *_: result)


def swapped_ends(patch: pytest.MonkeyPatch) -> None:
    real = TensorRTContext._start

    def start(self: TensorRTContext, execution: Any, buffers: dict[str, CudaBuffer], inputs: set[str]) -> None:
        names = list(buffers)
        real(self, execution, dict(zip(names, [buffers[name] for name in reversed(names)], strict=True)), inputs)

    patch.setattr(TensorRTContext, "_start", start)


def shared_context(patch: pytest.MonkeyPatch) -> None:
    import engines.tensorrt_context

    real, made = TensorRTEngine.create_context, {}

    def create_context(self: TensorRTEngine) -> TensorRTContext:
        if id(self) not in made:
            made[id(self)] = real(self)
        return made[id(self)]

    def no_graph(*_: object) -> None:
        raise engines.tensorrt_context.CaptureError("a graph would not use the context any more")

    patch.setattr(TensorRTEngine, "create_context", create_context)
    patch.setattr(engines.tensorrt_context, "capture", no_graph)


def shared_memory(patch: pytest.MonkeyPatch) -> None:
    """All contexts of a device use the first one's activation memory."""
    real, first = CudaDevice.allocate, {}

    def room(self: TensorRTContext, size: int) -> int:
        key = self._device.name, size
        if key not in first:
            first[key] = real(self._device, size)
        return first[key]

    patch.setattr(TensorRTContext, "_room_for", room)


def too_little_memory(patch: pytest.MonkeyPatch) -> None:
    real = CudaDevice.allocate
    patch.setattr(TensorRTContext, "_room_for", lambda self, size: real(self._device, max(256, size // 2)))


def graphs_by_shape_alone(patch: pytest.MonkeyPatch) -> None:
    """A graph is taken for any address of the same shape."""
    real = TensorRTContext._bound

    def bound(self: TensorRTContext, feeds: Any, outputs: Any) -> Any:
        key, buffers = real(self, feeds, outputs)
        return tuple((name, shape) for name, _, shape in key), buffers

    patch.setattr(TensorRTContext, "_bound", bound)


def wrong_split_batch(patch: pytest.MonkeyPatch) -> None:
    real = CudaBuffer.batches
    patch.setattr(CudaBuffer, "batches", lambda self, start, stop: real(self, max(0, start - 1), max(0, start - 1) + 1))


def beyond_the_buffer(patch: pytest.MonkeyPatch) -> None:
    def batches(self: CudaBuffer, start: int, stop: int) -> CudaBuffer:
        step = self.nbytes // self.shape[0]
        return CudaBuffer(self.address + (start + 1) * step, (stop - start, *self.shape[1:]), self.dtype, self.device)

    patch.setattr(CudaBuffer, "batches", batches)


def unaligned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TensorRTContext, "_aligned", lambda self, name, buffer: buffer)


def pageable_staging(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TensorRTContext, "_staged", lambda self, buffer: np.zeros(buffer.shape, buffer.dtype), raising=True)


def other_devices_features(patch: pytest.MonkeyPatch) -> None:
    """Both devices' trunks read the first device's features."""
    first: list[Any] = []
    real = Worker._bound

    def bound(self: Worker, run: range) -> Any:
        first.append(self.features)
        feeds, outputs = real(self, run)
        stolen = {name: buffer.batches(run.start, run.stop) for name, buffer in first[0].items()}
        device = next(iter(feeds.values())).device
        return {n: CudaBuffer(b.address, b.shape, b.dtype, device) for n, b in stolen.items()}, outputs

    patch.setattr(Worker, "_bound", bound)


def capture_without_a_run(patch: pytest.MonkeyPatch) -> None:
    def prepare(self: TensorRTContext, feeds: Any, outputs: Any) -> None:
        from engines.cuda_graphs import capture

        key, buffers = self._bound(feeds, outputs)
        graph = capture(self._stream.handle, lambda: self._start(self._base, buffers, set(feeds)))
        self._prepared[key] = Execution(None, graph)

    patch.setattr(TensorRTContext, "prepare", prepare)


def default_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CudaStream, "handle", property(lambda self: 0))


def device_before_contexts(patch: pytest.MonkeyPatch) -> None:
    real = Lane.close

    def close(self: Lane) -> None:
        self.device.close()
        real(self)

    patch.setattr(Lane, "close", close)


def labels_read_before_they_are_there(patch: pytest.MonkeyPatch) -> None:
    def labels(self: Worker, run: range) -> Any:
        feeds, outputs = self._bound(run)
        self.context.enqueue(feeds, outputs)
        array = self.context.read(outputs[runtime.lane.LABELS]).copy()
        self.context.synchronize()
        return array

    patch.setattr(Worker, "labels", labels)


def stem_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    def run_stem(self: Lane, frame: np.ndarray) -> None:
        self._stem.write(self._frame, frame[None])
        self._stem.enqueue(self._feeds, self._features)
        self._stem_done.set()

    patch.setattr(Lane, "run_stem", run_stem)


MUTATIONS = {
    "no synchronise at all": without(CudaStream, "synchronize"),
    "labels read before the synchronise": labels_read_before_they_are_there,
    "the trunk does not wait for the stem": stem_not_waited_for,
    "input and output swapped": swapped_ends,
    "one context for all workers": shared_context,
    "one activation memory for all contexts": shared_memory,
    "half the activation memory": too_little_memory,
    "graphs without addresses": graphs_by_shape_alone,
    "the neighbour's split batch": wrong_split_batch,
    "beyond the end of the features": beyond_the_buffer,
    "an unaligned address": unaligned,
    "host memory that is not page-locked": pageable_staging,
    "features of another device": other_devices_features,
    "a capture without a run before it": capture_without_a_run,
    "the default stream": default_stream,
    "no device current in the thread": lambda patch: patch.setattr(CudaDevice, "thread", lambda self: nullcontext()),
    "contexts that are never closed": without(TensorRTContext, "close"),
    "a device closed before its contexts": device_before_contexts,
    "a frame that is never uploaded": without(TensorRTContext, "write"),
    "labels that are never downloaded": without(CudaStream, "read"),
    "an engine that is never run": without(TensorRTContext, "enqueue"),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_every_mutation_is_noticed(
    package: Package,
    frames: np.ndarray,
    expected: list[np.ndarray],
    mutation: Mutation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutation(monkeypatch)
    assert run(package, frames, expected)
