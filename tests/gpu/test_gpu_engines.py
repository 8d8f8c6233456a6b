"""One TensorRT engine and its contexts on a real GPU: results, addresses, graphs, memory, refusals."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from gpu_here import MIB, Trained, backends_or_skip, gpus_or_skip

from engines.cuda import CudaDevice
from engines.load import load_engine
from engines.sidecar import engine_folder, read_sidecar, write_sidecar
from engines.tensorrt_context import TensorRTContext
from engines.tensorrt_engine import TensorRTEngine
from splitmerge.errors import EngineError

backends_or_skip()
GPU = gpus_or_skip()[0]
UINT8 = np.dtype(np.uint8)
CLOSE = 0.999  # share of labels; TensorRT computes float32 convolutions in TF32


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    device = CudaDevice(GPU)
    with device.thread():
        yield device
    device.close()


@pytest.fixture
def trunk(trained: Trained, backend: str, precision: str, device: CudaDevice) -> Iterator[TensorRTEngine]:
    engine = load_engine(trained.package, "trunk", backend, precision, device=device)
    assert isinstance(engine, TensorRTEngine)
    yield engine
    engine.close()


@pytest.fixture
def context(trunk: TensorRTEngine) -> Iterator[TensorRTContext]:
    context = trunk.create_context()
    yield context
    context.close()


class Batches:
    """Features of a real frame in device memory, the trunk's labels of each, and where labels go."""

    def __init__(self, trained: Trained, precision: str, trunk: TensorRTEngine, context: TensorRTContext) -> None:
        features = features_of(trained, precision)
        self.expected = labels_of(trained, precision, features)
        self.source = trunk.device.empty(features.shape, features.dtype)
        self.target = trunk.device.empty((4, *self.expected.shape[1:]), UINT8)
        self.name = trunk.inputs[0].name
        context.write(self.source, features)
        context.synchronize()

    def run(self, context: TensorRTContext, start: int, stop: int) -> np.ndarray:
        target = self.target.batches(0, stop - start)
        context.enqueue({self.name: self.source.batches(start, stop)}, {"labels": target})
        labels = context.read(target)
        context.synchronize()
        return labels.copy()

    def prepare(self, context: TensorRTContext, start: int, stop: int) -> None:
        target = self.target.batches(0, stop - start)
        context.prepare({self.name: self.source.batches(start, stop)}, {"labels": target})


def session(trained: Trained, part: str, precision: str) -> onnxruntime.InferenceSession:
    path = trained.package.path(trained.package.parts(precision)[part])
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def features_of(trained: Trained, precision: str) -> np.ndarray:
    features: np.ndarray = session(trained, "stem", precision).run(None, {"frames": trained.frames[0][None]})[0]
    return features


def labels_of(trained: Trained, precision: str, features: np.ndarray) -> np.ndarray:
    """What ONNX Runtime says of the trunk itself, on the CPU."""
    graph = session(trained, "trunk", precision)
    labels: np.ndarray = graph.run(["labels"], {graph.get_inputs()[0].name: features})[0]
    return labels


@pytest.fixture
def batches(trained: Trained, precision: str, trunk: TensorRTEngine, context: TensorRTContext) -> Batches:
    return Batches(trained, precision, trunk, context)


def test_it_describes_its_ends_as_the_package_does(trained: Trained, precision: str, trunk: TensorRTEngine) -> None:
    graph = trained.package.parts(precision)["trunk"]
    assert trunk.inputs == graph.inputs
    assert trunk.outputs == graph.outputs


def test_its_labels_are_the_graphs(batches: Batches, context: TensorRTContext) -> None:
    labels = np.concatenate([batches.run(context, start, start + 4) for start in range(0, 16, 4)])
    assert np.mean(labels == batches.expected) >= CLOSE


def test_split_batches_are_read_in_place(batches: Batches, context: TensorRTContext) -> None:
    for start, stop in ((5, 6), (5, 8), (15, 16), (0, 4)):
        assert np.mean(batches.run(context, start, stop) == batches.expected[start:stop]) >= CLOSE


def test_a_graph_gives_what_plain_execution_gives(batches: Batches, context: TensorRTContext) -> None:
    plain = [batches.run(context, i, i + 1) for i in range(16)]
    for i in range(16):
        batches.prepare(context, i, i + 1)
    assert context.graphs == 16, "CUDA graphs were not captured"
    for _ in range(3):
        for i in range(16):
            np.testing.assert_array_equal(batches.run(context, i, i + 1), plain[i])
    assert context.elapsed_ms() > 0


def test_graphs_of_several_shapes_and_plain_execution_take_turns(batches: Batches, context: TensorRTContext) -> None:
    runs = [(0, 3), (3, 6), (6, 7), (7, 8)]
    plain = {run: batches.run(context, *run) for run in runs}
    for run in runs:
        batches.prepare(context, *run)
    assert context.graphs == len(runs)
    for _ in range(3):
        for run in runs:
            np.testing.assert_array_equal(batches.run(context, *run), plain[run])
            batches.run(context, 9, 11)  # another shape, not prepared
    assert context.graphs == len(runs)


def test_larger_shapes_after_a_capture_capture_anew(batches: Batches, context: TensorRTContext) -> None:
    plain = batches.run(context, 2, 3)
    batches.prepare(context, 2, 3)
    before = context.memory_bytes
    batches.prepare(context, 0, 4)
    assert context.memory_bytes >= before
    np.testing.assert_array_equal(batches.run(context, 2, 3), plain)


def test_contexts_run_at_the_same_time(
    trained: Trained, trunk: TensorRTEngine, batches: Batches, context: TensorRTContext
) -> None:
    alone = [batches.run(context, i, i + 1)[0] for i in range(16)]
    wrong: list[object] = []

    def work(index: int) -> None:
        try:
            with trunk.device.thread():
                own = trunk.create_context()
                target = trunk.device.empty((1, *alone[0].shape), UINT8)
                for turn in range(48):
                    i = (index * 5 + turn) % 16
                    feeds = {batches.name: batches.source.batches(i, i + 1)}
                    if turn == 16 and index % 2:
                        own.prepare(feeds, {"labels": target})
                    own.enqueue(feeds, {"labels": target})
                    labels = own.read(target)
                    own.synchronize()
                    if not np.array_equal(labels[0], alone[i]):
                        wrong.append((index, turn))
                own.close()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong, wrong[:5]


def test_shapes_beyond_the_plan_are_refused_and_the_context_goes_on(
    trunk: TensorRTEngine, batches: Batches, context: TensorRTContext
) -> None:
    expected = batches.run(context, 0, 1)
    many = trunk.device.empty((5, *batches.target.shape[1:]), UINT8)
    with pytest.raises(EngineError, match="takes no"):
        context.enqueue({batches.name: batches.source.batches(0, 5)}, {"labels": many})
    np.testing.assert_array_equal(batches.run(context, 0, 1), expected)


def test_memory_is_what_it_says(trained: Trained, trunk: TensorRTEngine, batches: Batches) -> None:
    free = trunk.device.free_bytes()
    contexts = [trunk.create_context() for _ in range(3)]
    for context in contexts:
        batches.prepare(context, 0, 4)
    claimed = sum(context.memory_bytes for context in contexts)
    taken = free - trunk.device.free_bytes()
    assert all(0 < context.memory_bytes <= trunk.context_bytes for context in contexts)
    assert claimed - 8 * MIB <= taken <= claimed + 3 * 64 * MIB  # TensorRT's own share and the graphs
    for context in contexts:
        context.close()
        context.close()
    assert free - trunk.device.free_bytes() <= 64 * MIB


def test_no_room_to_grow_is_one_error_and_everything_closes(
    trunk: TensorRTEngine, batches: Batches, context: TensorRTContext
) -> None:
    batches.run(context, 0, 1)
    with filled(trunk.device), pytest.raises(EngineError):
        batches.prepare(context, 0, 4)
    context.close()
    other = trunk.create_context()
    batches.run(other, 0, 4)
    other.close()


@contextmanager
def filled(device: CudaDevice) -> Iterator[None]:
    """Nothing of the GPU's memory is left but pieces of less than 64 KiB."""
    taken, size = [], device.free_bytes()
    while size >= 1 << 16:
        try:
            taken.append(device.allocate(size))
        except EngineError:
            size //= 2
    try:
        yield
    finally:
        for address in taken:
            device.release(address)


def test_opening_and_closing_leaves_no_memory_behind(trained: Trained, backend: str, precision: str) -> None:
    free = []
    keep = CudaDevice(GPU)
    for _ in range(4):
        device = CudaDevice(GPU)
        engine = load_engine(trained.package, "trunk", backend, precision, device=device)
        assert isinstance(engine, TensorRTEngine)
        with device.thread():
            context = engine.create_context()
            batches = Batches(trained, precision, engine, context)
            batches.prepare(context, 0, 4)
        for thing in (context, engine, device):
            thing.close()
        with keep.thread():
            free.append(keep.free_bytes())
    keep.close()
    assert free[1] - free[-1] <= 8 * MIB, free  # the first time loads kernels for good


class TestWrongPlans:
    """What TensorRT itself says, where the sidecar is left out."""

    @pytest.mark.parametrize("spoil", ["empty", "half", "noise", "header"])
    def test_are_one_error_and_the_device_goes_on(
        self, trained: Trained, backend: str, device: CudaDevice, spoil: str
    ) -> None:
        plan = (engine_folder(trained.package, backend, "fp32", GPU.capability) / "trunk.plan").read_bytes()
        spoiled = {
            "empty": b"",
            "half": plan[: len(plan) // 2],
            "noise": np.random.default_rng(0).bytes(4096),
            "header": plan[:24] + bytes(4) + plan[28:],
        }[spoil]
        with pytest.raises(EngineError, match="does not take the plan"):
            TensorRTEngine(spoiled, backend, device)
        engine = TensorRTEngine(plan, backend, device)
        engine.create_context().close()
        engine.close()

    def test_the_sidecar_tells_the_gpu_that_is_here(self, trained: Trained, backend: str) -> None:
        path = engine_folder(trained.package, backend, "fp32", GPU.capability) / "trunk.plan"
        machine = read_sidecar(path).machine
        assert (machine["gpu"], machine["capability"]) == (GPU.name, GPU.capability)
        assert machine["multiprocessors"] == GPU.multiprocessors

    @pytest.mark.parametrize(("name", "value"), [("capability", "1.0"), ("multiprocessors", 100_000)])
    def test_another_gpus_plan_is_refused_before_it_is_loaded(
        self, trained: Trained, backend: str, name: str, value: object
    ) -> None:
        path = engine_folder(trained.package, backend, "fp32", GPU.capability) / "trunk.json"
        text = path.read_text()
        machine = read_sidecar(path).machine
        try:
            write_sidecar(path, replace(read_sidecar(path), machine={**machine, name: value}))
            with pytest.raises(EngineError, match="splitmerge build"):
                load_engine(trained.package, "trunk", backend)
        finally:
            path.write_text(text)
