"""Whole frames on a real GPU: every schedule gives the same labels, and they are PyTorch's."""

from collections.abc import Iterator

import numpy as np
import pytest
from gpu_here import MIB, Trained, backends_or_skip, gpus_or_skip
from trained_package import agreement

from engines.backends import choose_backend_to_run
from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.cuda import CudaDevice
from engines.load import load_engine, open_device
from engines.tensorrt_context import TensorRTContext
from runtime.executor import Executor
from runtime.shards import FrameShards
from runtime.stream import Stream, Whole
from runtime.tuning import tune_contexts

BACKENDS = backends_or_skip()
GPUS = gpus_or_skip()
CLOSE = 0.999  # share of labels that are PyTorch's float32 ones
SCHEDULES = [(2, 1, "index"), (3, 1, "bayer"), (16, 1, "bayer")]


def labels_of(trained: Trained, executor: Executor | FrameShards) -> list[np.ndarray]:
    return [executor.segment(frame) for frame in trained.frames]


@pytest.fixture
def alone(trained: Trained, backend: str, precision: str) -> list[np.ndarray]:
    """The labels of one context, one split batch after the other."""
    with Executor(trained.package, 1, 1, backend, precision, "index") as executor:
        return labels_of(trained, executor)


def test_labels_are_pytorchs(trained: Trained, alone: list[np.ndarray]) -> None:
    assert agreement(alone, trained.expected) >= CLOSE


@pytest.mark.parametrize(("contexts", "chunk", "order"), SCHEDULES)
def test_every_schedule_gives_the_same_labels(
    trained: Trained, backend: str, precision: str, alone: list[np.ndarray], contexts: int, chunk: int, order: str
) -> None:
    with Executor(trained.package, contexts, chunk, backend, precision, order) as executor:
        for _ in range(3):
            for labels, expected in zip(labels_of(trained, executor), alone, strict=True):
                np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("chunk", [2, 3, 4])
def test_chunks_give_the_same_labels_however_many_contexts(
    trained: Trained, backend: str, precision: str, alone: list[np.ndarray], chunk: int
) -> None:
    with Executor(trained.package, 1, chunk, backend, precision) as executor:
        expected = labels_of(trained, executor)
    # other shapes may sum in another order: near ties may fall the other way
    assert agreement(expected, alone) >= 0.9999
    with Executor(trained.package, 3, chunk, backend, precision) as executor:
        for labels, same in zip(labels_of(trained, executor), expected, strict=True):
            np.testing.assert_array_equal(labels, same)


@pytest.mark.parametrize(("contexts", "chunk"), [(1, 1), (2, 1), (3, 4)])
def test_every_context_runs_graphs(trained: Trained, backend: str, precision: str, contexts: int, chunk: int) -> None:
    with Executor(trained.package, contexts, chunk, backend, precision) as executor:
        (stream,) = executor._turns.idle
        assert isinstance(stream, Stream)
        (lane,) = stream._lanes
        assert isinstance(lane._stem, TensorRTContext)
        assert lane._stem.graphs == 1
        for worker in lane.workers:
            assert isinstance(worker.context, TensorRTContext)
            assert worker.context.graphs == 16 // chunk
        for frame in trained.frames:
            stats = executor.measure(frame)[1]
            assert stats.stem_ms > 0 and stats.trunk_ms > 0 and not stats.lost


def test_the_whole_graph_in_one_plan(trained: Trained, backend: str, precision: str, alone: list[np.ndarray]) -> None:
    device = open_device(backend)
    engine = load_engine(trained.package, "model", backend, precision, device=device)
    whole = Whole(engine, trained.package.manifest.input)
    labels = [whole.segment(frame)[0] for frame in trained.frames]
    for thing in (whole, engine, device):
        thing.close()
    assert agreement(labels, trained.expected) >= CLOSE
    assert agreement(labels, alone) >= CLOSE


def test_auto_is_tensorrt_here(trained: Trained, precision: str) -> None:
    assert choose_backend_to_run(trained.package, "auto", precision)[0] == BACKENDS[0]


def test_contexts_are_tuned(trained: Trained, backend: str, alone: list[np.ndarray], precision: str) -> None:
    tuned = tune_contexts(lambda n: Executor(trained.package, n, 1, backend, precision), frames=2)
    with tuned.executor as executor:
        assert 1 in tuned.milliseconds and executor.contexts in tuned.milliseconds
        np.testing.assert_array_equal(executor.segment(trained.frames[0]), alone[0])


def test_executors_leave_no_memory_behind(trained: Trained, backend: str, precision: str) -> None:
    keep, free = CudaDevice(GPUS[0]), []
    for _ in range(4):
        with Executor(trained.package, 3, 1, backend, precision) as executor:
            executor.segment(trained.frames[0])
        with keep.thread():
            free.append(keep.free_bytes())
    keep.close()
    assert free[1] - free[-1] <= 8 * MIB, free


@pytest.mark.skipif(len(GPUS) < 2, reason=f"needs two GPUs, here is {len(GPUS)}")
class TestTwoDevices:
    @pytest.fixture(autouse=True)
    def engines(self, trained: Trained, backend: str, precision: str) -> Iterator[None]:
        if GPUS[1].capability != GPUS[0].capability:
            build_engines(trained.package, backend, precision, GpuOptions(device=1))
        yield

    def check(self, trained: Trained, alone: list[np.ndarray], labels: list[np.ndarray]) -> None:
        if GPUS[0].name == GPUS[1].name:
            for one, other in zip(labels, alone, strict=True):
                np.testing.assert_array_equal(one, other)
        assert agreement(labels, trained.expected) >= CLOSE

    @pytest.mark.parametrize("devices", [(1,), (0, 1), (1, 0)])
    def test_split_batches_over_devices(
        self, trained: Trained, backend: str, precision: str, alone: list[np.ndarray], devices: tuple[int, ...]
    ) -> None:
        with Executor(trained.package, 2, 1, backend, precision, devices=devices) as executor:
            for _ in range(5):
                self.check(trained, alone, labels_of(trained, executor))

    def test_frames_over_devices(self, trained: Trained, backend: str, precision: str, alone: list[np.ndarray]) -> None:
        executors = [Executor(trained.package, 2, 1, backend, precision, devices=(i,)) for i in (0, 1)]
        with FrameShards(executors) as shards:
            for _ in range(3):
                self.check(trained, alone, labels_of(trained, shards))
