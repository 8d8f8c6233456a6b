"""A package gets fp16 graphs: through the verb, whole or not at all."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_package import make_package

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

from calibration.agreement import Labeller, label_agreement
from calibration.half import half_graph
from calibration.package import add_precision
from engines.build import build_engines
from splitmerge.cli import main
from splitmerge.errors import PackageError
from splitmerge.package import Package, TensorInfo

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
    ],
)
def test_what_cannot_be_leaves_the_package_alone(
    package: Package, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    before = {path: path.read_bytes() for path in package.folder.iterdir()}
    assert calibrate(package, *arguments) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in package.folder.iterdir()} == before


def test_int8_needs_a_later_opset(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = (package.folder / "manifest.json").read_bytes()
    assert calibrate(package, "--precision", "int8") == 2
    assert "is of opset 17 and int8 beside float16 needs 19" in capsys.readouterr().err
    assert (package.folder / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("cut", [True, False])
def test_a_network_that_overflows_is_not_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: bool
) -> None:
    package = make_package(tmp_path / "package", cut=cut)
    models = graphs(package)
    for model in models.values():  # weights that float16 holds, and sums that it does not
        for weight in model.graph.initializer:
            if len(weight.dims) == 4 and weight.dims[0] == 8 and weight.dims[1] == 8:
                large = numpy_helper.to_array(weight) * np.float32(1e5)
                weight.CopyFrom(numpy_helper.from_array(np.clip(large, -6e4, 6e4), weight.name))
    package = add_precision(package, "fp32", models)
    assert calibrate(package) == 1
    assert re.search(
        r"The layer conv_\d+ gives values up to \S+ and float16 holds up to 65504", capsys.readouterr().err
    )
    with pytest.raises(PackageError, match="no fp16 graphs"):
        Package.open(package.folder).parts("fp16")


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
