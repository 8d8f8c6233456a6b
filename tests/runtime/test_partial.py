"""Frames of which only some split batches are computed: density, deadline, still scenes."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip
from emulator import EmulatedDevice, Emulator
from hypothesis import given, settings
from hypothesis import strategies as st
from small_package import make_package

from engines.build import build_engines
from runtime.executor import Executor
from runtime.ordered import in_order
from runtime.partial import Mosaic, Scene, nearest
from runtime.share import Share
from runtime.stream import FrameStats
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.package import Cut, Package

LONG_AGO = 0.0  # of time.perf_counter


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = make_package(tmp_path_factory.mktemp("package") / "small")
    build_engines(package, "onnxruntime")
    return package


@pytest.fixture
def frame(package: Package) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)


def full(package: Package, frame: np.ndarray) -> np.ndarray:
    with Executor(package) as executor:
        return executor.segment(frame)


# --- filling ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_every_pixel_takes_a_nearest_computed_one(rows: int, columns: int, data: st.DataObject) -> None:
    """Each pixel of the map is labelled with its own number, so that a filled one tells where its label is from."""
    batches = data.draw(st.sets(st.integers(0, rows * columns - 1), min_size=1))
    height, width = 3 * rows, 3 * columns
    numbers = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    mosaic = Mosaic(Cut(2, rows, columns), (height, width))
    for index in batches:
        row, column = divmod(index, columns)
        mosaic.place(index, numbers[row::rows, column::columns])
    picture = mosaic.picture((height, width))
    computed = [(y, x) for y in range(height) for x in range(width) if (y % rows) * columns + x % columns in batches]
    # the middle window has neighbours all round
    for y, x in itertools.product(range(rows, 2 * rows), range(columns, 2 * columns)):
        source = divmod(int(picture[y, x]), width)
        assert source in computed
        assert distance((y, x), source) == min(distance((y, x), each) for each in computed)
    assert all(picture[y, x] == numbers[y, x] for y, x in computed)


def distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2


def test_the_middle_pixel_fills_its_own_window() -> None:
    assert set(nearest([(2, 2)], (4, 4)).values()) == {(2, 2)}


# --- density ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("density", "computed"), [("1", 16), ("1/4", 4), ("1/16", 1)])
def test_density(package: Package, frame: np.ndarray, density: str, computed: int) -> None:
    with Executor(package, density=density) as executor:
        for _ in range(3):
            labels, stats = executor.measure(frame)
            assert (stats.split_batches, stats.held) == (computed, 0)
    step = int(computed**0.5)
    offset = 0 if computed > 1 else 2
    grid = np.s_[offset :: 4 // step, offset :: 4 // step]
    np.testing.assert_array_equal(labels[grid], full(package, frame)[grid])


def test_a_sixteenth_is_what_pytorch_says_of_stride_4(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'splitmerge[train]'")
    from export.package import export_package
    from training.checkpoint import load_checkpoint
    from training.evaluate import normalise, predict

    trained = Path(__file__).parents[2] / "training/checkpoints/smp18-streets.safetensors"
    package = export_package(trained, (64, 128), tmp_path / "p")
    build_engines(package, "onnxruntime")
    from training.data import open_dataset

    frame, _ = open_dataset("streets", (64, 128), 1)[0]
    checkpoint = load_checkpoint(trained)
    expected = predict(checkpoint.model, normalise(torch.from_numpy(frame)[None], checkpoint.mean, checkpoint.std), 4)
    with Executor(package, density="1/16") as executor:
        assert (executor.segment(frame) == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"density": "1/2"}, "choose one of 1, 1/4, 1/16"),
        ({"density": "1/16", "chunk": 4}, "choose a higher density or --chunk 1"),
    ],
)
def test_densities_that_cannot_be_are_refused(package: Package, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Executor(package, **options)


def test_a_package_without_a_cut_has_one_density(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", cut=False)
    with pytest.raises(InputError, match="has no cut"):
        Executor(package, density="1/4")


# --- deadline ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contexts", [1, 2, 3])
def test_one_split_batch_is_computed_however_late_it_is(package: Package, frame: np.ndarray, contexts: int) -> None:
    with Executor(package, contexts=contexts) as executor:
        labels, stats = executor.measure(frame, until=LONG_AGO)
    assert (stats.split_batches, stats.held) == (1, 0)
    np.testing.assert_array_equal(labels[2::4, 2::4], full(package, frame)[2::4, 2::4])


def test_all_are_computed_where_there_is_time(package: Package, frame: np.ndarray) -> None:
    with Executor(package) as executor:
        labels, stats = executor.measure(frame, until=float("inf"))
    assert stats.split_batches == 16
    np.testing.assert_array_equal(labels, full(package, frame))


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_still_scene_completes(package: Package, frame: np.ndarray, contexts: int) -> None:
    expected = full(package, frame)
    with Executor(package, contexts=contexts) as executor:
        for held in range(16):
            labels, stats = executor.measure(frame, until=LONG_AGO)
            assert (stats.split_batches, stats.held) == (1, held)
        np.testing.assert_array_equal(labels, expected)
        stats = executor.measure(frame, until=LONG_AGO)[1]  # it goes on: each is computed again in its turn
        assert (stats.split_batches, stats.held) == (1, 15)


def test_another_scene_begins_anew(package: Package, frame: np.ndarray) -> None:
    other = 255 - frame
    with Executor(package) as executor:
        executor.measure(frame, until=LONG_AGO)
        labels, stats = executor.measure(other, until=LONG_AGO)
        assert (stats.split_batches, stats.held) == (1, 0)
    np.testing.assert_array_equal(labels[::4, ::4], full(package, other)[::4, ::4])  # the order goes on with (0, 0)


# --- several sources --------------------------------------------------------------------------------------------------


def moving(frame: np.ndarray, count: int, still: int) -> list[np.ndarray]:
    """Frames of a scene that stands still for so many frames, then is another."""
    return [np.roll(frame, 9 * (i // still), axis=1) for i in range(count)]


def results(measure: Callable[..., tuple[np.ndarray, FrameStats]], frame: np.ndarray) -> tuple[np.ndarray, int, int]:
    labels, stats = measure(frame, until=LONG_AGO)
    return labels, stats.split_batches, stats.held


def differences(package: Package, frame: np.ndarray, of: Callable[[Executor], Callable[..., Any]]) -> list[int]:
    """Frames of two sources that share one stream, turn about, in which labels or counts are others than alone. `of`
    makes what a source measures with.
    """
    clips = moving(frame, 18, 7), moving(255 - frame, 18, 11)
    with Executor(package) as executor:
        alone = []
        for clip in clips:
            share = Share(executor)
            alone.append([results(share.measure, each) for each in clip])
        measures = [of(executor), of(executor)]
        wrong = []
        for index, pair in enumerate(zip(*clips, strict=True)):
            for measure, each, expected in zip(measures, pair, (alone[0][index], alone[1][index]), strict=True):
                labels, computed, held = results(measure, each)
                if not np.array_equal(labels, expected[0]) or (computed, held) != expected[1:]:
                    wrong.append(index)
    return wrong


def test_two_sources_on_one_stream_have_what_each_has_alone(package: Package, frame: np.ndarray) -> None:
    assert differences(package, frame, lambda executor: Share(executor).measure) == []


def test_sources_with_one_memory_would_not(package: Package, frame: np.ndarray) -> None:
    assert len(differences(package, frame, lambda executor: executor.measure)) > 18


def test_alone_is_what_an_executor_of_its_own_gives(package: Package, frame: np.ndarray) -> None:
    with Executor(package) as one, Executor(package) as other:
        share = Share(other)
        share.measure(255 - frame)
        for each in moving(frame, 12, 5):
            given, expected = results(share.measure, each), results(one.measure, each)
            np.testing.assert_array_equal(given[0], expected[0])
            assert given[1:] == expected[1:]


def test_frames_without_a_deadline_leave_nothing_to_those_with_one(package: Package, frame: np.ndarray) -> None:
    """A scene, another one computed whole, the first again: nothing of the other may be taken for it."""
    with Executor(package) as executor:
        executor.measure(frame, until=LONG_AGO)
        executor.measure(255 - frame)
        assert executor.measure(frame, until=LONG_AGO)[1].held == 0


def test_frames_of_one_source_at_the_same_time_have_a_memory_each(package: Package, frame: np.ndarray) -> None:
    with Executor(package, in_flight=2) as executor:
        share, expected = Share(executor), executor.segment(frame)
        for labels, stats in in_order(lambda each: share.measure(each, until=LONG_AGO), [frame] * 60, 2):
            assert stats.split_batches == 1
            last = labels
    np.testing.assert_array_equal(last, expected)


def test_noise_is_the_same_scene_and_a_step_is_not(frame: np.ndarray) -> None:
    scene = Scene()
    dim = frame // 2 + 20
    noisy = (dim + np.random.default_rng(0).normal(0, 1.5, dim.shape)).astype(np.uint8)
    assert scene.changed(dim)
    assert not scene.changed(noisy)
    assert scene.changed(np.roll(noisy, 3, axis=1))


def test_a_device_that_fails_on_the_only_split_batch(package: Package, frame: np.ndarray) -> None:
    with Emulator([EmulatedDevice("Fast"), EmulatedDevice("Slow", speed=0.05)], work=0.002) as emulator:
        build_engines(package, "tensorrt")
        with Executor(package, backend="tensorrt", devices=(0, 1), contexts=1) as executor:
            emulator.fail("run:compute", after=2, device=0)  # after its stem, while the other is at its own
            stats = [executor.measure(frame, until=LONG_AGO)[1] for _ in range(3)]
    assert [each.split_batches for each in stats] == [1, 1, 1]
    assert [len(each.lost) for each in stats] == [1, 0, 0]


def test_records_tell_what_was_computed(package: Package, tmp_path: Path) -> None:
    clip, records = write_clip(tmp_path / "a.mp4", 6), tmp_path / "frames.jsonl"
    arguments = ["run", str(clip), "--package", str(package.folder), "--records", str(records)]
    assert main([*arguments, "--deadline-ms", "0.001"]) == 0
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    assert [row["split_batches"] for row in rows] == [1] * 6
    assert main([*arguments, "--density", "1/4"]) == 0
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    assert [row["split_batches"] for row in rows] == [4] * 6
