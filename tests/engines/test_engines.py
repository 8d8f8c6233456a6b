"""What every backend must do, and what only ONNX Runtime does."""

import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_package import make_package

from engines.backends import BACKENDS, choose_backend, find_backends
from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.load import load_engine
from engines.onnxruntime_engine import cores, threads_of_pool
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Package

FLOAT = np.dtype(np.float32)
UINT8 = np.dtype(np.uint8)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = make_package(tmp_path_factory.mktemp("package") / "small")
    build_engines(package, "onnxruntime", parts=["model", "stem", "trunk"])
    return package


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(16, 4, 12, 18)).astype(np.float32)


def plain(package: Package, part: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What ONNX Runtime says of the graph itself, without splitmerge."""
    session = onnxruntime.InferenceSession(str(package.folder / f"{part}.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("backend", BACKENDS)
class TestEveryBackend:
    """The interface, on each backend that runs here."""

    @pytest.fixture(autouse=True)
    def runs(self, backend: str) -> None:
        if not find_backends()[backend].runs:
            pytest.skip(f"{backend} cannot run engines on this machine")

    def test_gives_the_graphs_results(self, backend: str, package: Package, features: np.ndarray) -> None:
        engine = load_engine(package, "trunk", backend)
        context = engine.create_context()
        source, target = engine.device.empty(features.shape, FLOAT), engine.device.empty((16, 12, 18), UINT8)
        engine.device.write(source, features)
        context.enqueue({"features": source}, {"labels": target})
        context.synchronize()
        np.testing.assert_array_equal(engine.device.read(target), plain(package, "trunk", {"features": features}))

    def test_describes_its_ends(self, backend: str, package: Package) -> None:
        engine = load_engine(package, "trunk", backend)
        graph = package.parts("fp32")["trunk"]
        assert engine.inputs == graph.inputs
        assert engine.outputs == graph.outputs

    def test_reads_a_slice_of_a_buffer_in_place(self, backend: str, package: Package, features: np.ndarray) -> None:
        engine = load_engine(package, "trunk", backend)
        context = engine.create_context()
        source, target = engine.device.empty(features.shape, FLOAT), engine.device.empty((4, 12, 18), UINT8)
        engine.device.write(source, features)
        context.enqueue({"features": source.batches(5, 8)}, {"labels": target.batches(0, 3)})
        context.synchronize()
        expected = plain(package, "trunk", {"features": features})[5:8]
        np.testing.assert_array_equal(engine.device.read(target)[:3], expected)

    def test_contexts_are_independent(self, backend: str, package: Package, features: np.ndarray) -> None:
        engine = load_engine(package, "trunk", backend, contexts=4)
        expected = plain(package, "trunk", {"features": features})
        source = engine.device.empty(features.shape, FLOAT)
        engine.device.write(source, features)
        wrong = []

        def work(index: int) -> None:
            context, target = engine.create_context(), engine.device.empty((1, 12, 18), UINT8)
            for turn in range(20):
                i = (index * 5 + turn) % 16
                context.enqueue({"features": source.batches(i, i + 1)}, {"labels": target})
                context.synchronize()
                if not np.array_equal(engine.device.read(target)[0], expected[i]):
                    wrong.append((index, i))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_wrong_buffers_are_one_error(self, backend: str, package: Package) -> None:
        engine = load_engine(package, "trunk", backend)
        source, target = engine.device.empty((1, 3, 12, 18), FLOAT), engine.device.empty((1, 12, 18), UINT8)
        engine.device.write(source, np.zeros(source.shape, np.float32))
        with pytest.raises(EngineError):
            context = engine.create_context()
            context.enqueue({"features": source}, {"labels": target})
            context.synchronize()

    def test_writing_another_shape_is_refused(self, backend: str, package: Package) -> None:
        device = load_engine(package, "trunk", backend).device
        with pytest.raises(ValueError, match="was given"):
            device.write(device.empty((2, 2), FLOAT), np.zeros((1, 2), np.float32))


def test_a_slice_is_the_same_memory(package: Package) -> None:
    device = load_engine(package, "stem").device
    buffer = device.empty((4, 3), FLOAT)
    assert np.shares_memory(device.read(buffer), device.read(buffer.batches(1, 3)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_onnxruntime_gives_the_whole_graphs_labels(package: Package, threads: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 45, 70, 3), np.uint8)
    engine = load_engine(package, "model", threads=threads)
    source, target = engine.device.empty(frames.shape, UINT8), engine.device.empty((1, 45, 70), UINT8)
    engine.device.write(source, frames)
    engine.create_context().enqueue({"frames": source}, {"labels": target})
    np.testing.assert_array_equal(engine.device.read(target), plain(package, "model", {"frames": frames}))


def test_contexts_share_the_cores() -> None:
    assert threads_of_pool(1, None) == cores()
    assert threads_of_pool(cores() * 2, None) == 1  # the callers alone are as many as the cores
    assert threads_of_pool(2, 4) == 7  # two callers and six more threads


def test_a_gpu_engine_is_refused_in_words(package: Package) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineError, match="can be built but not run yet"):
        load_engine(package, "trunk", "tensorrt-rtx")


def test_a_missing_engine_names_the_command_that_makes_it(tmp_path: Path) -> None:
    package = make_package(tmp_path / "fresh")
    with pytest.raises(EngineError, match=r"splitmerge build --package .*fresh --backend onnxruntime --precision fp32"):
        load_engine(package, "trunk")


def test_a_missing_part_names_those_there_are(tmp_path: Path) -> None:
    package = make_package(tmp_path / "whole", cut=False)
    with pytest.raises(EngineError, match="has no fp32 trunk: ask for one of model"):
        load_engine(package, "trunk")


def test_a_failed_build_leaves_the_old_engines(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    built = build_engines(package)
    before = {engine.path: engine.path.read_bytes() for engine in built}
    (package.folder / "trunk.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="refuses the graph"):
        build_engines(package)
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in package.engines_folder.iterdir()] == ["onnxruntime-fp32"]


def test_auto_picks_what_runs_and_says_why() -> None:
    backend, why = choose_backend("auto")
    assert backend == "onnxruntime"
    assert why


def test_backends_that_cannot_be_are_refused(package: Package) -> None:
    with pytest.raises(InputError, match="choose auto or one of"):
        choose_backend("openvino")
    with pytest.raises(InputError, match="runs on the CPU"):
        build_engines(package, "onnxruntime", options=GpuOptions("8.9"))
