"""Collecting against onnxruntime.quantization's calibrators on the whole graph, and against stored tensors."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
from small_package import make_package

pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

from calibration.collect import collect, state_path
from calibration.ranges import threshold
from calibration.segments import SegmentedGraph
from calibration.state import read_state
from calibration.taps import taps_of
from export.package import export_package
from splitmerge.errors import InputError

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "training" / "checkpoints" / "smp18-streets.safetensors"


class Frames:
    """So many frames of noise; `then` is called before each but the first."""

    name = "noise"

    def __init__(self, size, count, then=lambda index: None):
        self.size, self.count, self.then = size, count, then

    def __len__(self):
        return self.count

    def __iter__(self):
        for index in range(self.count):
            if index:
                self.then(index)
            random = np.random.default_rng(index)
            yield random.integers(0, 256 // (1 + index % 3), (*self.size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The shipped SMP-18: residual additions, splits within the trunk, frames that need padding."""
    return export_package(CHECKPOINT, (60, 90), tmp_path_factory.mktemp("shipped") / "package")


@pytest.fixture(scope="module")
def of_shipped(shipped):
    return collect(shipped, Frames((60, 90), 3), progress=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_package(tmp_path_factory.mktemp("package") / "small")


@pytest.fixture(scope="module")
def frames(package):
    return Frames(package.manifest.input.size, 3)


@pytest.fixture(scope="module")
def collected(package, frames):
    return collect(package, frames, progress=False)


def conv_inputs(package, part="model"):
    return [node.input[0] for node in graph_of(package, part).graph.node if node.op_type == "Conv"]


def graph_of(package, part="model"):
    return onnx.load(package.path(package.parts("fp32")[part]))


TENSOR = "features"


def same(one, other):
    assert list(one) == list(other)
    for a, b in zip(one.values(), other.values(), strict=True):
        for array in ("histogram", "lowest", "highest", "totals"):
            np.testing.assert_array_equal(getattr(a, array), getattr(b, array))
        for number in ("name", "exponent", "count", "zeros"):
            assert getattr(a, number) == getattr(b, number)


def stored_values(package, frames):
    """Every float tensor that the whole graph computes, over all frames."""
    model = onnx.shape_inference.infer_shapes(graph_of(package))
    floats = [v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    model.graph.output.extend(floats)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in floats]
    runs = [session.run(names, {"frames": frame[None]}) for frame in frames]
    return {name: np.concatenate([run[i].ravel() for run in runs]) for i, name in enumerate(names)}


def test_what_is_quantised_is_collected_once_and_known_in_all_graphs(shipped, of_shipped):
    for part in ("model", "stem", "trunk"):
        for node in graph_of(shipped, part).graph.node:
            wanted = {"Conv": node.input[:1], "Add": node.input}.get(node.op_type, [])
            assert {of_shipped.same_as[name] for name in wanted} <= set(of_shipped.statistics), (part, node.name)
    # 21 convolutions read 18 tensors (three downsamplings share theirs); 8 additions read 11 further ones.
    assert len(of_shipped.statistics) == 29
    assert of_shipped.images == 3 and of_shipped.resumed_from == 0


def test_split_batches_in_segments_give_what_the_whole_graph_computes(shipped, of_shipped):
    compared = set()
    for name, values in stored_values(shipped, Frames((60, 90), 3)).items():
        if name in of_shipped.same_as:
            statistics = of_shipped.statistics[of_shipped.same_as[name]]
            # ONNX Runtime fuses what is not looked at, so values are off by rounding.
            rounding = 1e-5 * float(np.abs(values).max())
            assert statistics.count == values.size
            assert statistics.maximum == pytest.approx(values.max(), abs=rounding)
            assert statistics.minimum == pytest.approx(values.min(), abs=rounding)
            mean = values.mean(dtype=np.float64)
            assert statistics.channel_means.mean() == pytest.approx(mean, abs=rounding)
            limit = np.percentile(np.abs(values), 99.9)
            assert threshold(statistics, "percentile-99.9") == pytest.approx(limit, abs=2 * statistics.bin_width)
            compared.add(statistics.name)
    assert compared == set(of_shipped.statistics)


@pytest.mark.parametrize("segment_bytes", [0, 100, 1 << 40])
def test_segments_change_nothing(package, frames, collected, segment_bytes):
    same(collect(package, frames, progress=False, segment_bytes=segment_bytes).statistics, collected.statistics)


def test_a_segment_shows_no_more_than_it_may(shipped, of_shipped):
    trunk, names = graph_of(shipped, "trunk"), [name for name in of_shipped.statistics if name != "padding"]
    features = np.random.default_rng(0).normal(size=(1, 16, 16, 24)).astype(np.float32)
    smallest = features.nbytes // 2
    graph = SegmentedGraph(trunk, names, ["labels"], segment_bytes=smallest)
    sizes, whole = {}, {}
    cut = graph.run({"features": features}, lambda name, values: sizes.__setitem__(name, values.nbytes))
    uncut = SegmentedGraph(trunk, names, ["labels"], segment_bytes=1 << 40)
    expected = uncut.run({"features": features}, lambda name, values: whole.__setitem__(name, values.nbytes))
    assert sizes == whole and set(sizes) == set(names) and len(uncut.segments) == 1
    np.testing.assert_array_equal(cut["labels"], expected["labels"])
    for segment in graph.segments:
        shown = [sizes[name] for name in segment.outputs if name in sizes]
        assert sum(shown[:-1]) <= smallest


def test_a_package_without_cut_gives_the_same(tmp_path, frames, collected):
    whole = collect(make_package(tmp_path / "whole", cut=False), frames, progress=False).statistics
    for one, other in zip(whole.values(), collected.statistics.values(), strict=True):
        assert one.count == other.count
        assert one.absolute_maximum == pytest.approx(other.absolute_maximum, rel=1e-5)


class Reader(CalibrationDataReader):
    def __init__(self, frames):
        self.feeds = ({"frames": frame[None]} for frame in frames)

    def get_next(self):
        return next(self.feeds, None)


@pytest.mark.parametrize(
    ("method", "options", "ours", "bins"),
    [
        (CalibrationMethod.MinMax, {}, "minmax", 0),
        (CalibrationMethod.Percentile, {"percentile": 99.99, "num_bins": 8192}, "percentile-99.99", 3),
    ],
)
def test_ranges_are_those_of_onnxruntimes_calibrators(shipped, of_shipped, tmp_path, method, options, ours, bins):
    model = shipped.path(shipped.parts("fp32")["model"])
    extra = {"symmetric": True, **options}
    calibrator = create_calibrator(
        model, ["Conv"], str(tmp_path / "augmented.onnx"), calibrate_method=method, extra_options=extra
    )
    calibrator.collect_data(Reader(Frames((60, 90), 3)))
    theirs = calibrator.compute_data().data
    for name in conv_inputs(shipped):
        statistics = of_shipped.statistics[of_shipped.same_as[name]]
        low, high = (float(np.max(value)) for value in theirs[name].range_value)
        tolerance = bins * statistics.bin_width + 1e-5 * statistics.absolute_maximum
        assert threshold(statistics, ours) == pytest.approx(max(-low, high), abs=tolerance), name


def test_residual_additions_and_moved_tensors():
    def node(kind, inputs, output, **attributes):
        return onnx.helper.make_node(kind, inputs, [output], **attributes)

    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Reshape", ["a", "shape"], "b"),
        node("Transpose", ["b"], "c", perm=[0, 1, 2, 3]),
        node("Add", ["c", "a"], "d"),
        node("Add", ["d", "bias"], "e"),
        node("Relu", ["e"], "f"),
    ]
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 2, 2])
    taps = taps_of({"model": onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [value], []))}, None)
    assert taps.names == ("x", "a")
    assert taps.same_as == {"x": "x", "a": "a", "b": "a", "c": "a"}


def test_the_same_network_with_other_weights(package, frames, collected):
    models = {part: graph_of(package, part) for part in ("model", "stem", "trunk")}
    name = next(node.input[1] for node in models["trunk"].graph.node if node.op_type == "Conv")
    weight = next(weight for weight in models["trunk"].graph.initializer if weight.name == name)
    weight.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weight), name))
    other = collect(package, frames, progress=False, models=models).statistics
    assert list(other) == list(collected.statistics)
    before, first, *rest = [other[n].absolute_maximum / collected.statistics[n].absolute_maximum for n in other]
    assert (before, first) == (1, 1) and all(ratio > 1 for ratio in rest)


def test_tensors_of_choice(package, frames, collected):
    (name,) = collect(package, frames, [TENSOR], progress=False).statistics
    assert name == TENSOR
    with pytest.raises(InputError, match="None of the package's graphs computes a tensor 'nonsense'"):
        collect(package, frames, ["nonsense"], progress=False)
    with pytest.raises(InputError, match="Tensor frames is uint8"):
        collect(package, frames, ["frames"], progress=False)


def test_frames_that_do_not_fit_and_no_frames_are_refused(package):
    with pytest.raises(
        InputError, match=r"image 1 of noise is uint8 \(32, 32, 3\) and the package takes uint8 \(45, 7"
    ):
        collect(package, Frames((32, 32), 1), progress=False)
    with pytest.raises(InputError, match="noise gave no image"):
        collect(package, Frames(package.manifest.input.size, 0), progress=False)


def test_overflow_in_the_network_is_named(tmp_path, package, frames):
    broken = make_package(tmp_path / "broken")
    path = broken.path(broken.parts("fp32")["trunk"])
    model = onnx.load(path)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), 3e38, np.float32), weight.name))
    onnx.save(model, path)
    with pytest.raises(
        InputError, match=r"Tensor \w+ holds \d+ NaN and \d+ infinite values of \d+ in image 1 of noise"
    ):
        collect(broken, frames, progress=False)


def stop_at(position):
    def then(index):
        if index == position:
            raise KeyboardInterrupt

    return then


def test_an_interrupted_collection_is_taken_up(tmp_path, package, frames, collected):
    state, size = tmp_path / "state.npz", package.manifest.input.size
    with pytest.raises(KeyboardInterrupt):
        collect(package, Frames(size, 3, stop_at(2)), progress=False, resume=state)
    seen = []
    resumed = collect(package, frames, progress=False, resume=state, seen=lambda count, _: seen.append(count))
    assert (resumed.resumed_from, resumed.data_sha256, seen) == (2, collected.data_sha256, [3])
    same(resumed.statistics, collected.statistics)
    assert not state.exists()


@pytest.mark.parametrize("change", ["other images", "other tensors", "damaged"])
def test_a_state_of_something_else_is_not_taken_up(tmp_path, package, frames, collected, change):
    state, size = tmp_path / "state.npz", package.manifest.input.size
    tensors = [TENSOR] if change == "other tensors" else None
    other = Frames(size, 3, stop_at(2))
    if change == "other images":
        other = Frames(size, 4, stop_at(3))
        other.__class__ = type("Reversed", (Frames,), {"__iter__": lambda self: map(np.flip, Frames.__iter__(self))})
    with pytest.raises(KeyboardInterrupt):
        collect(package, other, tensors, progress=False, resume=state)
    if change == "damaged":
        state.write_bytes(state.read_bytes()[:-200])
    anew = collect(package, frames, progress=False, resume=state)
    assert anew.resumed_from == 0
    same(anew.statistics, collected.statistics)


def test_a_killed_collection_is_taken_up_with_the_very_same_result(tmp_path, package):
    """A process that is killed in the middle of its seventh image; the state is saved after every second one."""
    script = (
        f"import os, signal, sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests'), str(Path(__file__).parent)]}\n"
        "from pathlib import Path; from test_collect import Frames; from calibration.collect import collect\n"
        "from splitmerge.package import Package\n"
        f"package = Package.open(Path({str(package.folder)!r}))\n"
        "def kill(index):\n"
        "    if index == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "frames = Frames(package.manifest.input.size, 10, kill)\n"
        f"collect(package, frames, progress=False, resume=Path({str(tmp_path / 'state.npz')!r}), save_every=2)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    frames = Frames(package.manifest.input.size, 10)
    resumed = collect(package, frames, progress=False, resume=tmp_path / "state.npz")
    assert resumed.resumed_from == 6
    whole = collect(package, frames, progress=False)
    same(resumed.statistics, whole.statistics)
    assert (resumed.images, resumed.data_sha256) == (whole.images, whole.data_sha256)


def test_a_state_holds_no_pickles_and_lies_in_the_package(tmp_path, package):
    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        collect(package, Frames(package.manifest.input.size, 3, stop_at(1)), progress=False, resume=state)
    with np.load(state, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "Ui" for name in file)
    assert read_state(state, {"other": 1}) is None
    assert state_path(package).parent == package.folder


def test_the_histograms_hardly_care_for_the_images_order(package, frames, collected):
    for order in itertools.permutations(range(3)):
        mixed = Frames(frames.size, 3)
        images = list(frames)
        mixed.__class__ = type("Mixed", (Frames,), {"__iter__": lambda self, o=order, i=images: (i[k] for k in o)})
        for name, statistics in collect(package, mixed, progress=False).statistics.items():
            np.testing.assert_array_equal(statistics.histogram, collected.statistics[name].histogram)
