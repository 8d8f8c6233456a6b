"""Frames on one GPU or several, emulated strictly: same labels, failures survived, everything freed."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from emulator import EmulatedDevice, Emulator
from emulator.fixture import make_emulator  # noqa: F401
from small_package import make_package

from engines.build import build_engines
from runtime.executor import Executor
from runtime.ordered import in_order
from runtime.shards import FrameShards
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Package

DEVICES = [EmulatedDevice("First"), EmulatedDevice("Second", speed=0.5), EmulatedDevice("Third")]


@pytest.fixture
def gpus(make_emulator: Callable[..., Emulator]) -> Iterator[Emulator]:  # noqa: F811
    """Three devices. Broken rules and leaks fail the test when it ends."""
    emulator = make_emulator(DEVICES)
    yield emulator
    assert emulator.left_current == 0


def on_gpus(package: Package, devices: tuple[int, ...] = (0, 1, 2), contexts: int = 2, **how: object) -> Executor:
    return Executor(package, contexts=contexts, backend="tensorrt", devices=devices, **how)


@pytest.mark.parametrize("devices", [(0,), (2,), (0, 1), (2, 0, 1)])
@pytest.mark.parametrize(
    ("contexts", "chunk", "order"),
    [(1, 1, "index"), (1, 4, "bayer"), (2, 1, "bayer"), (3, 3, "bayer"), (9, 2, "index")],
)
def test_labels_are_those_of_one_context_on_the_cpu(
    gpus: Emulator,
    package: Package,
    frames: np.ndarray,
    expected: list[np.ndarray],
    devices: tuple[int, ...],
    contexts: int,
    chunk: int,
    order: str,
) -> None:
    with on_gpus(package, devices, contexts, chunk=chunk, order=order) as executor:
        for frame, labels in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(executor.segment(frame), labels)


@pytest.mark.parametrize("in_flight", [2, 3])
def test_frames_in_flight_do_not_mix(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray], in_flight: int
) -> None:
    with on_gpus(package, in_flight=in_flight) as executor:
        results = list(in_order(executor.segment, [*frames] * 5, executor.parallel))
    for given, wanted in zip(results, expected * 5, strict=True):
        np.testing.assert_array_equal(given, wanted)


def test_a_device_lost_with_frames_in_flight_is_told_once(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray]
) -> None:
    with on_gpus(package, in_flight=2) as executor:
        gpus.fail("run:compute", after=20, device=1, times=1000)
        results = list(in_order(executor.measure, [*frames] * 5, executor.parallel))
    for (labels, _), wanted in zip(results, expected * 5, strict=True):
        np.testing.assert_array_equal(labels, wanted)
    assert [words.split()[0] for _, stats in results for words in stats.lost] == ["cuda:1"]


def test_a_package_without_a_cut(gpus: Emulator, tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", cut=False)
    build_engines(package, "onnxruntime")
    build_engines(package, "tensorrt")
    frame = np.random.default_rng(1).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)
    with Executor(package, backend="onnxruntime") as on_cpu, on_gpus(package, (1,)) as executor:
        np.testing.assert_array_equal(executor.segment(frame), on_cpu.segment(frame))
    with pytest.raises(InputError, match="use --shard frames"):
        on_gpus(package, (0, 1))


def test_every_device_takes_part_and_computes_one_stem(gpus: Emulator, package: Package, frames: np.ndarray) -> None:
    with on_gpus(package) as executor:
        before = len(gpus.timeline.spans)
        executor.segment(frames[0])
        spans = gpus.timeline.spans[before:]
    computed = [span for span in spans if span.kind == "compute"]
    stems = [span for span in computed if "stem" in span.label]
    assert sorted(span.device for span in stems) == [0, 1, 2]
    assert len(computed) == 3 + 16
    uploads = [span for span in spans if span.kind == "h2d"]
    assert sorted(span.device for span in uploads) == [0, 1, 2]  # a frame to each device, and nothing else
    assert len([span for span in spans if span.kind == "d2h"]) == 16


def test_each_context_has_its_own_stream(gpus: Emulator, package: Package, frames: np.ndarray) -> None:
    with on_gpus(package, (0,), contexts=3) as executor:
        executor.segment(frames[0])
    trunks = [span for span in gpus.timeline.of(0, "compute") if "trunk" in span.label]
    assert len({span.stream for span in trunks}) == 3


def test_frames_run_as_graphs(gpus: Emulator, package: Package, frames: np.ndarray, monkeypatch) -> None:
    launched, plain = [], []
    real = gpus.libcuda.cuGraphLaunch
    monkeypatch.setattr(gpus.libcuda, "cuGraphLaunch", lambda *a: launched.append(a) or real(*a), raising=False)
    with on_gpus(package, (0,)) as executor:
        count_plain_executions(executor, plain, monkeypatch)
        launched.clear()
        executor.segment(frames[0])
        assert len(launched) == 17
        assert not plain


def count_plain_executions(executor: Executor, seen: list, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.tensorrt_context import TensorRTContext

    real = TensorRTContext._execute
    monkeypatch.setattr(TensorRTContext, "_execute", lambda *given: seen.append(given) or real(*given))


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags"])
def test_without_graphs_it_runs_all_the_same_and_says_so_once(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray], call: str, caplog
) -> None:
    gpus.fail(call, times=1000)
    with caplog.at_level(logging.WARNING), on_gpus(package, (0,), contexts=1) as executor:
        np.testing.assert_array_equal(executor.segment(frames[0]), expected[0])
    lines = [record.getMessage() for record in caplog.records if "no CUDA graph" in record.getMessage()]
    assert len(lines) == 2  # the stem's context and the trunk's


# --- failures ---------------------------------------------------------------------------------------------------------

FAILURES = ["cuGraphLaunch", "run:compute", "run:d2h", "memcpy_dtoh_async", "memcpy_htod_async", "Stream.synchronize"]


@pytest.mark.parametrize("call", FAILURES)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_device_that_fails_is_dropped_and_the_frame_is_complete(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray], call: str, after: int
) -> None:
    with on_gpus(package, (0, 1)) as executor:
        gpus.fail(call, after=after, device=1)
        lost = []
        for frame, labels in zip(frames, expected, strict=True):
            segmented, stats = executor.measure(frame)
            np.testing.assert_array_equal(segmented, labels)
            lost += stats.lost
    (words,) = lost  # once, in one of the frames
    assert words.startswith("cuda:1 failed and was dropped: ")


@pytest.mark.parametrize("devices", [(0, 1), (1, 0)])
def test_a_device_that_fails_before_its_stem_holds_up_nobody(
    gpus: Emulator,
    package: Package,
    frames: np.ndarray,
    expected: list[np.ndarray],
    devices: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first worker cannot even begin; the other one waits for features that will not come."""
    with on_gpus(package, devices, contexts=2) as executor:
        (stream,) = executor._turns.idle
        lane = next(lane for lane in stream._lanes if lane.device.name == "cuda:1")
        real, entered = lane.device.thread, []

        def thread() -> AbstractContextManager[None]:
            entered.append(threading.current_thread())
            if len(entered) == 1:
                raise EngineError("out of luck")
            return real()

        monkeypatch.setattr(lane, "wait_for_stem", lambda: lane._stem_done.wait(20) and not lane._stem_failed)
        monkeypatch.setattr(lane.device, "thread", thread)
        began = time.monotonic()
        labels, stats = executor.measure(frames[0])
        assert time.monotonic() - began < 15, "the other worker waited until the test's own limit"
    np.testing.assert_array_equal(labels, expected[0])
    (words,) = stats.lost
    assert words == "cuda:1 failed and was dropped: out of luck"


def test_a_lost_device_leaves_the_others(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray]
) -> None:
    with on_gpus(package) as executor:
        np.testing.assert_array_equal(executor.segment(frames[0]), expected[0])
        gpus.lose(0)
        segmented, stats = executor.measure(frames[1])
        np.testing.assert_array_equal(segmented, expected[1])
        assert len(stats.lost) == 1
        gpus.lose(2)
        np.testing.assert_array_equal(executor.segment(frames[2]), expected[2])
        gpus.lose(1)
        with pytest.raises(EngineError, match="lost"):
            executor.segment(frames[0])


def test_devices_that_all_fail_in_one_frame_are_one_error(gpus: Emulator, package: Package, frames: np.ndarray) -> None:
    with on_gpus(package) as executor:
        for device in range(3):
            gpus.lose(device)
        with pytest.raises(EngineError, match="lost"):
            executor.segment(frames[0])


@pytest.mark.parametrize("call", ["mem_alloc", "pagelocked_empty", "Stream", "create_execution_context"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_failure_while_opening_is_one_sentence_and_leaks_nothing(
    gpus: Emulator, package: Package, call: str, after: int
) -> None:
    gpus.fail(call, after=after, device=1)
    with pytest.raises(EngineError):
        on_gpus(package)


def test_contexts_that_do_not_fit_are_refused(make_emulator: Callable[..., Emulator], package: Package) -> None:  # noqa: F811
    make_emulator([EmulatedDevice(memory_gib=0.00015)])
    with pytest.raises(EngineError, match=r"A context of .* MiB does not fit cuda:0.*fewer --contexts"):
        on_gpus(package, (0,), contexts=9)


def test_context_memory_is_what_the_plan_says(gpus: Emulator, package: Package) -> None:
    used = {}
    for contexts in (1, 2, 4):
        with on_gpus(package, (0,), contexts=contexts) as executor:
            (stream,) = executor._turns.idle
            used[contexts] = gpus.memory_used(0)
            each = stream._lanes[0].workers[0].context.memory_bytes
            assert each > 0
    labels = 256 * -(-12 * 18 // 256)
    assert 0 <= (used[4] - used[2]) / 2 - each - labels <= 4096  # and a little scratch for unaligned split batches
    assert used[2] - used[1] == (used[4] - used[2]) / 2
    assert gpus.memory_used(0) == 0


def test_ctrl_c_frees_everything(gpus: Emulator, package: Package, frames: np.ndarray, monkeypatch) -> None:
    import runtime.stream

    real = runtime.stream.Stream._place

    def interrupted(*given: object) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        real(*given)

    with pytest.raises(KeyboardInterrupt), on_gpus(package) as executor:
        monkeypatch.setattr(runtime.stream.Stream, "_place", interrupted)
        for _ in range(100):  # until the main thread gets a split batch
            executor.segment(frames[0])
    assert [gpus.memory_used(device) for device in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("devices", [(3,), (0, 3)])
def test_a_device_that_is_not_there_is_refused(gpus: Emulator, package: Package, devices: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"finds no GPU 3 here \(there is 0 \(First\), 1 \(Second\), 2 \(Third\)\)"):
        on_gpus(package, devices)


def test_a_device_named_twice_is_refused(gpus: Emulator, package: Package) -> None:
    with pytest.raises(InputError, match="name each device once"):
        on_gpus(package, (0, 0))


# --- whole frames on each device --------------------------------------------------------------------------------------


def shards(package: Package, in_flight: int = 1) -> FrameShards:
    return FrameShards([on_gpus(package, (device,), in_flight=in_flight) for device in range(3)])


def run_all(segmenter: FrameShards, frames: np.ndarray, turns: int = 6) -> tuple[list[np.ndarray], list[str]]:
    results = list(in_order(segmenter.measure, [*frames] * turns, segmenter.parallel))
    return [labels for labels, _ in results], [words for _, stats in results for words in stats.lost]


def test_frames_are_spread_over_devices(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray]
) -> None:
    with shards(package) as segmenter:
        labels, lost = run_all(segmenter, frames)
    for given, wanted in zip(labels, expected * 6, strict=True):
        np.testing.assert_array_equal(given, wanted)
    assert not lost
    stems = [span for span in gpus.timeline.spans if span.kind == "compute" and "stem" in span.label]
    assert {span.device for span in stems} == {0, 1, 2}


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_frame_of_a_lost_device_is_done_by_another(
    gpus: Emulator, package: Package, frames: np.ndarray, expected: list[np.ndarray], in_flight: int
) -> None:
    with shards(package, in_flight) as segmenter:
        gpus.fail("run:compute", after=40, device=1, times=1000)
        gpus.fail("run:compute", after=5, device=2, times=1000)
        labels, lost = run_all(segmenter, frames)
        for given, wanted in zip(labels, expected * 6, strict=True):
            np.testing.assert_array_equal(given, wanted)
        assert sorted({words[:6] for words in lost}) == ["cuda:1", "cuda:2"]
        gpus.lose(0)
        with pytest.raises(EngineError, match="lost"):
            segmenter.measure(frames[0])
