"""A package gets fp16 graphs: through the verb, whole or not at all."""

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from small_package import make_package

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

from trained import half_values, models_of, rescaled_package

from calibration.agreement import Labeller, label_agreement
from calibration.half import half_graph
from calibration.package import add_precision
from calibration.peaks import Extent, extents_of, with_extents
from engines.build import build_engines
from splitmerge.cli import main
from splitmerge.errors import InputError, PackageError
from splitmerge.labels import LabelClass
from splitmerge.package import Package, TensorInfo
from training.data import open_dataset

PARTS = ("model", "stem", "trunk")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package")


def graphs(package: Package) -> dict[str, onnx.ModelProto]:
    return {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}


def calibrate(package: Package, *more: str) -> int:
    # random weights have near ties by the dozen
    fixed = ["--precision", "fp16", "--images", "2", "--min-agreement", "98"]
    return main(["calibrate", "--package", str(package.folder), *fixed, *more])


def test_the_verb_adds_fp16(package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fp32 = {path: path.read_bytes() for path in package.folder.glob("*.onnx")}
    assert calibrate(package, "--json", str(tmp_path / "c.json")) == 0
    assert "% of the labels are those of fp32" in capsys.readouterr().out
    added = Package.open(package.folder)
    assert set(added.parts("fp16")) == set(PARTS)
    features = TensorInfo("features", "float16", (None, 4, 12, 18))
    assert added.parts("fp16")["stem"].outputs == added.parts("fp16")["trunk"].inputs == (features,)
    assert added.parts("fp16")["stem"].inputs == package.parts("fp32")["stem"].inputs
    assert added.parts("fp16")["model"].outputs == package.parts("fp32")["model"].outputs
    assert added.parts("fp32") == package.parts("fp32")
    assert {path: path.read_bytes() for path in fp32} == fp32
    written = json.loads((tmp_path / "c.json").read_text())
    facts = added.manifest.verification["fp16"]
    assert facts["label_agreement"] == written["label_agreement"] >= 0.98
    assert facts["pixels"] == 2 * 45 * 70
    assert [engine.part for engine in build_engines(added, "onnxruntime", "fp16")] == ["stem", "trunk"]
    assert main(["inspect", str(package.folder)]) == 0


def test_layers_can_be_kept(package: Package) -> None:
    assert calibrate(package, "--keep", "conv_0", "conv_9") == 0
    added = Package.open(package.folder)
    assert list(added.manifest.verification["fp16"]["kept_float32"]) == ["conv_0", "conv_9"]
    trunk = onnx.load(added.path(added.parts("fp16")["trunk"]))
    kinds = {weight.name: weight.data_type for weight in trunk.graph.initializer}
    kept = {node.name for node in trunk.graph.node if node.op_type == "Conv" and kinds[node.input[1]] == 1}
    assert kept == {"conv_0", "conv_9"}


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--precision", "int8", "--keep", "conv_0"], "--keep is for fp16", 2),
        (["--precision", "fp8"], "fp8 cannot be made: give --precision int8 or fp16", 2),
        (["--keep", "conv_99"], "has no convolution 'conv_99'", 2),
        (["--min-agreement", "100"], "In fp16 only 99", 1),
        (["--data", "no such folder"], "no such folder", 2),
        (["--method", "mse"], "--method is for int8 and fp16 was asked for", 2),
        (["--rest", "fp32"], "--rest is for int8", 2),
        (["--force"], "--force is for int8", 2),
        (["--data", "BLACK"], "has only images of one colour (1 of them)", 2),
    ],
)
def test_what_cannot_be_leaves_the_package_alone(
    package: Package, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    black = package.folder.parent / "black.png"
    cv2.imwrite(str(black), np.full((45, 70, 3), (0, 0, 9), np.uint8))
    before = {path: path.read_bytes() for path in package.folder.iterdir()}
    assert calibrate(package, *(str(black) if a == "BLACK" else a for a in arguments)) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in package.folder.iterdir()} == before


def test_streets_are_not_taken_for_other_classes(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (["sky", "wire", "mast"], [f"class {index}" for index in range(19)]):
        classes = tuple(LabelClass(name, (0, 0, 0)) for name in names)
        Package.write_manifest(package.folder, dataclasses.replace(package.manifest, classes=classes))
        for precision in ("int8", "fp16"):
            assert main(["calibrate", "--package", str(package.folder), "--precision", precision]) == 2
            error = capsys.readouterr().err
            assert f"has the {len(names)} classes {names[0]}, {names[1]}, " in error and "with --data" in error
        assert main(["calibrate", "--package", str(package.folder), "--data", "drive"]) == 2
        assert "drive is labelled with Cityscapes'" in capsys.readouterr().err
        # fp16 looks at no labels: whoever says streets gets them
        assert calibrate(package, "--data", "streets") == 0
        assert main(["calibrate", "--package", str(package.folder), "--data", "x", "--thin", "tree"]) == 2


def test_int8_needs_a_later_opset(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = (package.folder / "manifest.json").read_bytes()
    assert calibrate(package, "--precision", "int8") == 2
    assert "is of opset 17 and int8 beside float16 needs 19" in capsys.readouterr().err
    assert (package.folder / "manifest.json").read_bytes() == manifest


def overflowing(package: Package, factor: float) -> Package:
    """Weights that float16 holds or not, and sums that it does not."""
    models = graphs(package)
    for model in models.values():
        for weight in model.graph.initializer:
            if len(weight.dims) == 4 and weight.dims[0] == 8 and weight.dims[1] == 8:
                large = numpy_helper.to_array(weight) * np.float32(factor)
                weight.CopyFrom(numpy_helper.from_array(large, weight.name))
    return add_precision(package, "fp32", models)


@pytest.mark.parametrize("factor", [4e4, 1e6])
def test_what_overflows_stays_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float) -> None:
    package = overflowing(make_package(tmp_path / "package", cut=False), factor)
    assert calibrate(package) == 0
    out = capsys.readouterr().out
    assert re.search(r"in float32, because float16 does not hold it: .*conv_\d+ \(values up to \S+\)", out)
    assert ("(weights up to" in out) == (factor > 1e5)
    added = Package.open(package.folder)
    half = onnx.load(added.path(added.parts("fp16")["model"]))
    frame = np.random.default_rng(0).integers(0, 256, (1, 45, 70, 3), np.uint8)
    values = half_values(half, {"frames": frame})
    assert values and all(np.isfinite(value).all() for value in values.values())
    # the very same graph with nothing kept does overflow
    if factor < 1e5:
        values = half_values(half_graph(graphs(package)["model"]), {"frames": frame})
        assert any(np.isinf(value).any() for value in values.values())


@pytest.mark.parametrize("factor", [2.0**13, 2.0**-24])
def test_across_the_cut_and_at_both_ends_of_float16(tmp_path: Path, factor: float) -> None:
    package = rescaled_package(tmp_path / "package", factor)
    arguments = ["--package", str(package.folder), "--precision", "fp16", "--images", "1"]
    assert main(["calibrate", *arguments]) == 0  # 99.95 % of the labels, the default
    added = Package.open(package.folder)
    facts = added.manifest.verification["fp16"]
    kept = facts["kept_float32"]
    assert {"conv1", "layer3.1.add", "classifier"} <= set(kept)
    frames = open_dataset("streets", (64, 128), 1)[0][0][None]
    if factor > 1:
        sums = [name for name in kept if name.endswith(".add") and name.replace("add", "conv2") not in kept]
        assert sums and "values up to" in kept[sums[0]]  # a sum can be too large by itself
        assert facts["largest_value"] > 2**15 and facts["flushed_to_zero"] < 1e-3 * facts["of_values"]
    else:
        assert kept["classifier"] == "100% of the values below 6.1e-05" and "of the weights below" in kept["conv1"]
        assert facts["flushed_to_zero"] > 0.1 * facts["of_values"] and max(facts["underflow"].values()) == 1
    models = models_of(added, "fp16")
    (end,), (start,) = models["stem"].graph.output, models["trunk"].graph.input
    assert end.type.tensor_type.elem_type == start.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    values = half_values(models["model"], {"frames": frames})
    assert all(np.abs(value).max() < 65504 for value in values.values())
    assert (factor > 1) == bool(values)


def test_values_that_are_not_finite_are_refused(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = overflowing(package, 3e37)
    assert calibrate(before) == 2
    assert re.search(r"The layer conv_\d+ gives NaN or infinity in float32 already", capsys.readouterr().err)
    with pytest.raises(PackageError, match="no fp16 graphs"):
        Package.open(package.folder).parts("fp16")


def test_extents_are_what_numpy_counts() -> None:
    values = np.random.default_rng(5).normal(0, 1, (3, 4, 50)).astype(np.float32)
    values[0] *= np.float32(2.0**-14)
    values[1] *= np.float32(2.0**-25)
    values[2, 0] = 0
    values[2, 1, 0] = -70000
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4, 50]) for name in "xy"]
    identity = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 19)]
    model = with_extents(onnx.helper.make_model(identity, opset_imports=opset, ir_version=9), ["y"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def extent(x: np.ndarray) -> Extent:
        return extents_of(dict(zip(names, session.run(names, {"x": x}), strict=True)), ["y"])["y"]

    found, half = extent(values), np.abs(np.clip(values, -6e4, 6e4).astype(np.float16))
    assert found.largest == 70000 and found.nonzero == np.count_nonzero(values)
    assert found.flushed == ((half == 0) & (values != 0)).sum() > 100
    small = np.abs(values) < 2.0**-14
    assert found.subnormal == ((half > 0) & small).sum() > 100
    assert found.total == pytest.approx(np.abs(values).sum(dtype=np.float64), rel=1e-5)
    assert (found + found).nonzero == 2 * found.nonzero and (found + found).largest == 70000
    for wrong in (np.nan, np.inf):
        for index in (0, 7, values.size - 1):  # a maximum in ONNX Runtime passes over most NaN
            broken = values.copy()
            broken.flat[index] = wrong
            with pytest.raises(InputError, match="The layer y gives NaN or infinity"):
                extent(broken)


def test_graphs_are_replaced_and_a_broken_attempt_leaves_a_whole_package(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = {part: half_graph(model) for part, model in graphs(package).items()}
    first = add_precision(package, "fp16", halves, {"images": 1})
    kept = {part: half_graph(graphs(package)[part], names) for part, names in (("model", []), ("trunk", ["conv_0"]))}
    with monkeypatch.context() as patch:
        written = []

        def full(path: Path) -> str:
            written.append(path)
            raise OSError(28, "No space left on device")

        patch.setattr("calibration.package.sha256_of", full)
        with pytest.raises(OSError, match="No space"):
            add_precision(first, "fp16", kept)
    assert written
    with pytest.raises(PackageError, match="no fp16 graphs"):
        Package.open(package.folder).parts("fp16")
    add_precision(Package.open(package.folder), "fp16", kept, {"images": 2})
    again = Package.open(package.folder)
    assert set(again.parts("fp16")) == {"model", "trunk"}
    assert again.manifest.verification["fp16"] == {"images": 2}
    assert again.parts("fp16")["trunk"].sha256 != first.parts("fp16")["trunk"].sha256


@pytest.mark.parametrize("cut", [True, False])
def test_labels_of_the_parts_are_those_of_the_whole(tmp_path: Path, cut: bool) -> None:
    package = make_package(tmp_path / "package", cut=cut)
    whole = make_package(tmp_path / "whole", cut=False)
    frames = np.random.default_rng(0).integers(0, 256, (2, 45, 70, 3), np.uint8)
    one, other = Labeller(graphs(package), package.manifest.cut), Labeller(graphs(whole), None)
    result = label_agreement(one, other, frames)
    assert (result.images, result.pixels, result.differing, result.share) == (2, 2 * 45 * 70, 0, 1.0)
    changed = label_agreement(one, lambda frame: other(frame) ^ (frame[..., 0] < 128), frames)
    assert changed.differing == (frames[..., 0] < 128).sum()
