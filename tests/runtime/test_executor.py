"""The executor: same labels however the split batches are scheduled, errors and threads that end."""

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_package import make_package

import runtime.stream
from engines.build import build_engines
from runtime.executor import Executor
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Package

MATRIX = [
    (1, 1, "index"),
    (1, 1, "bayer"),
    (2, 1, "bayer"),
    (3, 1, "bayer"),
    (2, 4, "bayer"),
    (3, 5, "index"),
    (9, 99, "bayer"),
]
WINDOWS = [(4, 4), (2, 2), (2, 4), (3, 2), (1, 1)]


def frames_for(package: Package, count: int = 2) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *package.manifest.input.size, 3), np.uint8)


def whole_graph(package: Package, frame: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(package.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(["labels"], {"frames": frame[None]})[0][0]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = make_package(tmp_path_factory.mktemp("package") / "small")
    build_engines(package)
    return package


@pytest.fixture
def threads_end():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize(("contexts", "chunk", "order"), MATRIX)
def test_labels_are_the_whole_graphs_for_every_schedule(
    package: Package, contexts: int, chunk: int, order: str, threads_end: None
) -> None:
    with Executor(package, contexts=contexts, chunk=chunk, order=order) as executor:
        for frame in frames_for(package):
            labels, stats = executor.measure(frame)
            assert labels.dtype == np.uint8
            np.testing.assert_array_equal(labels, whole_graph(package, frame))
            assert stats.split_batches == 16


@pytest.mark.parametrize("window", WINDOWS)
def test_any_window(tmp_path: Path, window: tuple[int, int]) -> None:
    package = make_package(tmp_path / "p", window=window)
    build_engines(package)
    (frame,) = frames_for(package, 1)
    with Executor(package, contexts=2) as executor:
        np.testing.assert_array_equal(executor.segment(frame), whole_graph(package, frame))


def test_a_package_without_a_cut_runs_whole(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", cut=False)
    build_engines(package)
    (frame,) = frames_for(package, 1)
    with Executor(package, contexts=3) as executor:
        labels, stats = executor.measure(frame)
        np.testing.assert_array_equal(labels, whole_graph(package, frame))
        assert stats.split_batches == 1
        assert stats.trunk_ms > 0


def test_labels_belong_to_the_caller(package: Package) -> None:
    first, second = frames_for(package)
    with Executor(package) as executor:
        labels = executor.segment(first)
        kept = labels.copy()
        executor.segment(second)
        np.testing.assert_array_equal(labels, kept)
        labels[:] = 200
        np.testing.assert_array_equal(executor.segment(first), kept)


def test_frames_may_be_views(package: Package) -> None:
    (frame,) = frames_for(package, 1)
    wide = np.zeros((45, 140, 3), np.uint8)
    wide[:, ::2] = frame
    with Executor(package) as executor:
        np.testing.assert_array_equal(executor.segment(wide[:, ::2]), executor.segment(frame))


def test_stem_and_trunk_are_measured(package: Package) -> None:
    with Executor(package) as executor:
        stats = executor.measure(frames_for(package, 1)[0])[1]
        assert stats.stem_ms > 0
        assert stats.trunk_ms > 0


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((46, 70, 3), np.uint8),
        np.zeros((45, 70), np.uint8),
        np.zeros((1, 45, 70, 3), np.uint8),
        np.zeros((45, 70, 3), np.float32),
        None,
    ],
)
def test_other_frames_are_refused(package: Package, frame: np.ndarray) -> None:
    with Executor(package) as executor, pytest.raises(InputError, match=r"takes uint8 \(45, 70, 3\), blue-green-red"):
        executor.segment(frame)


@pytest.mark.parametrize("contexts", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError("out of luck"), EngineError("out of luck"), MemoryError("out of luck")])
def test_a_failing_batch_is_one_error(
    package: Package, contexts: int, error: Exception, monkeypatch: pytest.MonkeyPatch, threads_end: None
) -> None:
    (frame,) = frames_for(package, 1)
    with Executor(package, contexts=contexts) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(runtime.stream.Stream, "_place", fails_at(9, error))
            with pytest.raises(EngineError, match="out of luck"):
                executor.segment(frame)
        np.testing.assert_array_equal(executor.segment(frame), whole_graph(package, frame))  # and it goes on after that


def test_ctrl_c_ends_the_other_threads(package: Package, monkeypatch: pytest.MonkeyPatch, threads_end: None) -> None:
    (frame,) = frames_for(package, 1)

    def interrupted(*given: object) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with Executor(package, contexts=3) as executor:
        monkeypatch.setattr(runtime.stream.Stream, "_place", interrupted)
        for _ in range(3):
            with suppress(KeyboardInterrupt):  # the others may have done all batches before the main thread gets one
                executor.segment(frame)
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("trunk")]


def fails_at(index: int, error: Exception):
    def place(self: object, mosaic: object, run: range, labels: np.ndarray) -> None:
        if index in run:
            raise error

    return place


def test_several_threads_take_turns(package: Package, threads_end: None) -> None:
    frames = frames_for(package, 4)
    expected = [whole_graph(package, frame) for frame in frames]
    results: dict[int, np.ndarray] = {}
    with Executor(package, contexts=2) as executor:
        threads = [
            threading.Thread(target=lambda i=i: results.update({i: executor.segment(frames[i])})) for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, labels in enumerate(expected):
        np.testing.assert_array_equal(results[i], labels)


def test_options_that_cannot_be_are_refused(package: Package) -> None:
    with pytest.raises(InputError, match="0 contexts"):
        Executor(package, contexts=0)
    with pytest.raises(InputError, match="chunk of 0"):
        Executor(package, chunk=0)
    with pytest.raises(InputError, match="order"):
        Executor(package, order="zigzag")


def test_a_closed_executor_says_so(package: Package) -> None:
    with Executor(package) as executor:
        pass
    with pytest.raises(EngineError, match="has been closed"):
        executor.segment(frames_for(package, 1)[0])


def test_engines_of_another_package_are_refused(package: Package, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="splitmerge build"):
        Executor(make_package(tmp_path / "unbuilt"))


def test_it_imports_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None; import runtime.executor"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("model", ["smp18", "smp50"])
def test_exported_networks(tmp_path: Path, model: str) -> None:
    torch = pytest.importorskip("torch")
    from export.package import export_package
    from splitmerge.labels import CITYSCAPES
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    torch.manual_seed(0)
    checkpoint = tmp_path / "c.safetensors"
    save_checkpoint(checkpoint, create_model(model, len(CITYSCAPES), 2).eval(), model, CITYSCAPES)
    package = export_package(checkpoint, (40, 90), tmp_path / "p")
    build_engines(package)
    (frame,) = frames_for(package, 1)
    expected = whole_graph(package, frame)
    for contexts, chunk, order in MATRIX:
        with Executor(package, contexts=contexts, chunk=chunk, order=order) as executor:
            np.testing.assert_array_equal(executor.segment(frame), expected)


def test_no_room_for_a_thread_is_one_sentence(
    package: Package, threads_end: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def full(thread: threading.Thread) -> None:
        if thread.name.startswith("trunk-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    frame = frames_for(package)[0]
    with Executor(package, contexts=3) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", full)
            with pytest.raises(EngineError, match=r"no room for another context \(can't start new thread\)"):
                executor.segment(frame)
        assert np.array_equal(executor.segment(frame), whole_graph(package, frame)), "the next frame is done"
