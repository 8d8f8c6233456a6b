"""`export --form` and `--output-stride`: packages of rewritten networks, verified as any other."""

import json
from pathlib import Path

import pytest
from export_samples import network

from export.graphs import Rewriting
from export.package import export_package
from runtime.forms import time_forms
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Package
from training.checkpoint import save_checkpoint


def checkpoint(folder: Path, name: str) -> Path:
    path = folder / "network.safetensors"
    save_checkpoint(path, network(name), name, CITYSCAPES[:7])
    return path


def operators(package: Package) -> set[str]:
    import onnx

    graph = onnx.load(package.path(package.parts("fp32")["model"])).graph
    return {node.op_type for node in graph.node}


def test_auto_keeps_the_faster_form_and_says_what_it_was_chosen_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = checkpoint(tmp_path, "dilatedfcn8-18"), tmp_path / "package"
    arguments = ["--checkpoint", str(path), "--size", "70x100", "--package", str(folder), "--form", "auto"]
    assert main(["export", *arguments]) == 0
    manifest = Package.open(folder).manifest
    times = manifest.form_times
    assert times is not None and times.rounds == 5 and times.backend == "onnxruntime"
    assert all(median is not None and median > 0 for median in times.median_ms.values())
    assert manifest.form == min(times.median_ms, key=lambda form: times.median_ms[form] or 0)
    assert ("Where" in operators(Package.open(folder))) == (manifest.form == "split")
    capsys.readouterr()
    assert main(["inspect", str(folder), "--json", str(tmp_path / "inspect.json")]) == 0
    printed = capsys.readouterr().out
    assert f"form      {manifest.form}" in printed
    assert (
        f"{manifest.form}: {times.median_ms[manifest.form]:.1f} ms a frame, kept (onnxruntime, median of 5)" in printed
    )
    assert set(json.loads((tmp_path / "inspect.json").read_text())["manifest"]["form_times"]["median_ms"]) == {
        "split", "dilated"
    }  # fmt: skip


def test_smp_is_split_and_cut_or_dilated_and_whole(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "smp18")
    split, dilated = (
        export_package(path, (40, 90), tmp_path / form, rewriting=Rewriting(form)) for form in ("split", "dilated")
    )
    assert split.manifest.cut is not None and dilated.manifest.cut is None
    assert "Reshape" in operators(split) and "Reshape" not in operators(dilated)
    assert {row["compared"] for row in dilated.manifest.verification["comparisons"]} == {"dilated network", "model"}
    times, fastest = time_forms({"split": split, "dilated": dilated}, "onnxruntime", rounds=1)
    assert fastest in times.median_ms and len(times.median_ms) == 2


def test_fcn32s_at_stride_1_is_a_package_that_is_cut(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "fcn32s-18")
    package = export_package(path, (40, 90), tmp_path / "package", rewriting=Rewriting(output_stride=1))
    assert package.manifest.output_stride == 1
    assert package.manifest.cut is not None and package.manifest.cut.batches == 16
    assert [row["compared"] for row in package.manifest.verification["comparisons"]] == ["model", "stem + trunk"]


@pytest.mark.parametrize("form", ["split", "dilated", "auto"])
def test_a_network_without_dilation_has_one_form(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = checkpoint(tmp_path, "fcn32s-18"), tmp_path / "package"
    arguments = ["--checkpoint", str(path), "--size", "64x96", "--package", str(folder), "--form", form]
    assert main(["export", *arguments]) == 2
    assert "has neither dilated convolutions nor split pooling" in capsys.readouterr().err
    assert not folder.exists()


def test_a_level_that_cannot_be_cut_is_refused_where_it_was_asked_for(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "fcn32s-18")
    with pytest.raises(InputError, match="cannot be cut at level 2"):
        export_package(path, (64, 96), tmp_path / "package", 2, rewriting=Rewriting(output_stride=8))
