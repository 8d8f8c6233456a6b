"""What every backend must do, and what only ONNX Runtime does."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from emulator import Emulator
from small_package import make_package

from engines.backends import BACKENDS, choose_backend, find_backends
from engines.build import build_engines
from engines.compiler import GpuOptions
from engines.host import HostDevice, host_array
from engines.interface import Buffer, Context, Engine
from engines.load import load_engine, open_device
from engines.machine import find_gpus
from engines.onnxruntime_engine import cores, threads_of_each
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
    def runs(self, backend: str, package: Package) -> Iterator[None]:
        """TensorRT is emulated where it is not here; everything must be given back at the test's end."""
        with ExitStack() as stack:
            if not find_backends()[backend].runs:
                if backend == "tensorrt-rtx":
                    pytest.skip("tensorrt-rtx cannot run engines on this machine, and the emulator is TensorRT's")
                stack.enter_context(Emulator(tolerate=["wrong-shape"]))  # one test asks for it
                build_engines(package, backend, options=GpuOptions(max_batches=16))
            yield

    @pytest.fixture
    def trunk(self, backend: str, package: Package, runs: None) -> Iterator[Engine]:
        device = open_device(backend)
        engine = load_engine(package, "trunk", backend, contexts=4, device=device)
        with device.thread():
            yield engine
        engine.close()
        device.close()

    def test_gives_the_graphs_results(self, trunk: Engine, package: Package, features: np.ndarray) -> None:
        source, target = trunk.device.empty(features.shape, FLOAT), trunk.device.empty((16, 12, 18), UINT8)
        with context_of(trunk) as context:
            context.write(source, features)
            context.enqueue({"features": source}, {"labels": target})
            labels = result(context, target)
        np.testing.assert_array_equal(labels, plain(package, "trunk", {"features": features}))

    def test_describes_its_ends(self, trunk: Engine, package: Package) -> None:
        graph = package.parts("fp32")["trunk"]
        assert trunk.inputs == graph.inputs
        assert trunk.outputs == graph.outputs

    def test_reads_a_slice_of_a_buffer_in_place(self, trunk: Engine, package: Package, features: np.ndarray) -> None:
        source, target = trunk.device.empty(features.shape, FLOAT), trunk.device.empty((4, 12, 18), UINT8)
        with context_of(trunk) as context:
            context.write(source, features)
            context.enqueue({"features": source.batches(5, 8)}, {"labels": target.batches(0, 3)})
            labels = result(context, target.batches(0, 3))
        np.testing.assert_array_equal(labels, plain(package, "trunk", {"features": features})[5:8])

    def test_what_was_prepared_runs_the_same(self, trunk: Engine, package: Package, features: np.ndarray) -> None:
        expected = plain(package, "trunk", {"features": features})
        source, target = trunk.device.empty(features.shape, FLOAT), trunk.device.empty((1, 12, 18), UINT8)
        with context_of(trunk) as context:
            context.write(source, np.zeros_like(features))
            for i in range(3):
                context.prepare({"features": source.batches(i, i + 1)}, {"labels": target})
            context.write(source, features)
            for i in range(4):  # the last was not prepared
                context.enqueue({"features": source.batches(i, i + 1)}, {"labels": target})
                np.testing.assert_array_equal(result(context, target)[0], expected[i])

    def test_contexts_are_independent(self, trunk: Engine, package: Package, features: np.ndarray) -> None:
        expected = plain(package, "trunk", {"features": features})
        source = trunk.device.empty(features.shape, FLOAT)
        with context_of(trunk) as first:
            first.write(source, features)
            first.synchronize()
        wrong, done = [], []

        def work(index: int) -> None:
            with trunk.device.thread(), context_of(trunk) as context:
                target = trunk.device.empty((1, 12, 18), UINT8)
                for turn in range(20):
                    i = (index * 5 + turn) % 16
                    context.enqueue({"features": source.batches(i, i + 1)}, {"labels": target})
                    if not np.array_equal(result(context, target)[0], expected[i]):
                        wrong.append((index, i))
            done.append(index)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert len(done) == 4

    def test_wrong_buffers_are_one_error(self, trunk: Engine) -> None:
        source, target = trunk.device.empty((1, 3, 12, 18), FLOAT), trunk.device.empty((1, 12, 18), UINT8)
        with context_of(trunk) as context:
            context.write(source, np.zeros(source.shape, np.float32))
            with pytest.raises(EngineError):
                context.enqueue({"features": source}, {"labels": target})
                context.synchronize()

    def test_writing_another_shape_is_refused(self, trunk: Engine) -> None:
        with context_of(trunk) as context, pytest.raises(ValueError, match="was given"):
            context.write(trunk.device.empty((2, 2), FLOAT), np.zeros((1, 2), np.float32))


@contextmanager
def context_of(engine: Engine) -> Iterator[Context]:
    context = engine.create_context()
    try:
        yield context
    finally:
        context.close()


def result(context: Context, buffer: Buffer) -> np.ndarray:
    array = context.read(buffer)
    context.synchronize()
    return array.copy()


def test_a_slice_is_the_same_memory() -> None:
    buffer = HostDevice().empty((4, 3), FLOAT)
    assert np.shares_memory(host_array(buffer), host_array(buffer.batches(1, 3)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_onnxruntime_gives_the_whole_graphs_labels(package: Package, threads: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 45, 70, 3), np.uint8)
    engine = load_engine(package, "model", threads=threads)
    source, target = engine.device.empty(frames.shape, UINT8), engine.device.empty((1, 45, 70), UINT8)
    context = engine.create_context()
    context.write(source, frames)
    context.enqueue({"frames": source}, {"labels": target})
    np.testing.assert_array_equal(result(context, target), plain(package, "model", {"frames": frames}))


def test_every_context_has_a_session_of_its_own(package: Package) -> None:
    """On a CPU: one arena for two would hand each core what the other's cache holds."""
    engine = load_engine(package, "trunk", contexts=2)
    sessions = [engine.create_context()._session for _ in range(3)]
    assert sessions[0] is not sessions[1] and sessions[0] is sessions[2]
    shares = "session.use_env_allocators"
    assert sessions[0].get_session_options().get_session_config_entry(shares) == "1"
    with pytest.raises(RuntimeError, match=shares):
        sessions[1].get_session_options().get_session_config_entry(shares)


def test_contexts_map_one_file_of_weights(tmp_path: Path) -> None:
    package = make_package(tmp_path / "wide", channels=64)
    (small, large) = build_engines(package, parts=["stem", "trunk"])
    weights = large.path.with_suffix(".weights")
    assert not small.path.with_suffix(".weights").exists()
    assert weights.stat().st_size > 64 * 64 * 9 * 4 > large.path.stat().st_size
    assert large.size == weights.stat().st_size + large.path.stat().st_size
    engine = load_engine(package, "trunk", contexts=2)
    features = np.random.default_rng(3).normal(size=(1, 64, 12, 18)).astype(np.float32)
    source, target = engine.device.empty(features.shape, FLOAT), engine.device.empty((1, 12, 18), UINT8)
    expected = plain(package, "trunk", {"features": features})
    contexts = [engine.create_context() for _ in range(2)]
    build_engines(package)  # another file takes the place of the one that is mapped
    for context in contexts:
        context.write(source, features)
        context.enqueue({"features": source}, {"labels": target})
        np.testing.assert_array_equal(result(context, target), expected)
    if (maps := Path("/proc/self/maps")).is_file():
        mapped = [line.split() for line in maps.read_text().splitlines() if str(tmp_path) in line]
        assert len({inode for _, _, _, _, inode, *_ in mapped}) == 1
        places = [offset for _, _, offset, *_ in mapped]
        assert places and all(places.count(offset) == len(contexts) for offset in places)


@pytest.mark.parametrize("gone", [False, True])
def test_weights_that_are_replaced_while_they_are_mapped(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, other = (make_package(tmp_path / name, channels=64, seed=seed) for seed, name in enumerate("ab"))
    folder, others = (build_engines(one)[0].path.parent for one in (package, other))
    opened, real = [], onnxruntime.InferenceSession

    def session(*arguments: Any, **options: Any) -> Any:
        opened.append(None)
        if len(opened) == 2:
            folder.rename(tmp_path / "old")
            if not gone:
                others.rename(folder)
        return real(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(EngineError, match=r"trunk\.onnx was replaced while it was being loaded: load it again"):
        load_engine(package, "trunk", contexts=2)
    assert len(opened) == 2


def test_an_engine_of_before_has_its_weights_itself(tmp_path: Path, features: np.ndarray) -> None:
    package = make_package(tmp_path / "before")
    build_engines(package)
    path = package.engines_folder / "onnxruntime-fp32" / "trunk.json"
    described = json.loads(path.read_text())
    assert described.pop("weights_sha256") is None
    path.write_text(json.dumps(described))
    engine = load_engine(package, "trunk")
    source, target = engine.device.empty(features.shape, FLOAT), engine.device.empty((16, 12, 18), UINT8)
    context = engine.create_context()
    context.write(source, features)
    context.enqueue({"features": source}, {"labels": target})
    np.testing.assert_array_equal(result(context, target), plain(package, "trunk", {"features": features}))


def test_contexts_share_the_cores() -> None:
    assert threads_of_each(1, None) == cores()
    assert threads_of_each(cores() * 2, None) == 1
    assert threads_of_each(2, 4) == 4


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_a_gpu_engine_without_a_gpu_is_refused_in_words(package: Package) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(InputError, match="finds no GPU 0 here"):
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
