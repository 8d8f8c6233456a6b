"""build, run and compare on emulated GPUs, through the command line."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip
from emulator import EmulatedDevice, Emulator
from emulator.fixture import make_emulator  # noqa: F401

from splitmerge.cli import main
from splitmerge.package import Package

torch = pytest.importorskip("torch", reason="pip install 'splitmerge[train]'")

SIZE = (64, 96)
CARDS = [EmulatedDevice("RTX 4090", "8.9"), EmulatedDevice("RTX 3060", "8.6", speed=0.4, multiprocessors=28)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    from export.package import export_package
    from splitmerge.labels import CITYSCAPES
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    folder = tmp_path_factory.mktemp("gpu")
    torch.manual_seed(1)
    save_checkpoint(folder / "c.safetensors", create_model("smp18", 19, 4).eval(), "smp18", CITYSCAPES)
    package = export_package(folder / "c.safetensors", SIZE, folder / "package")
    assert main(["build", "--package", str(package.folder), "--backend", "onnxruntime"]) == 0
    return package


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", 8, SIZE)


@pytest.fixture
def gpus(make_emulator: Callable[..., Emulator]) -> Iterator[Emulator]:  # noqa: F811
    yield make_emulator(CARDS)


@pytest.fixture
def built(gpus: Emulator, package: Package) -> Package:
    """With a plan for each of the two cards."""
    if not (package.engines_folder / "tensorrt-sm86-fp32").is_dir():
        assert main(["build", "--package", str(package.folder)]) == 0
    return package


def masks(folder: Path) -> np.ndarray:
    return np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())])


def run_clip(package: Package, clip: Path, out: Path, *options: str) -> dict[str, object]:
    arguments = ["run", str(clip), "--package", str(package.folder), "--masks", str(out / "masks")]
    assert main([*arguments, "--json", str(out / "run.json"), *options]) == 0
    value: dict[str, object] = json.loads((out / "run.json").read_text())
    return value


def test_auto_builds_for_each_kind_of_gpu(built: Package, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--package", str(built.folder)]) == 0
    out = capsys.readouterr().out
    assert "backend: tensorrt" in out
    for folder in ("tensorrt-sm89-fp32", "tensorrt-sm86-fp32"):
        assert f"{folder}/trunk.plan" in out
        assert (built.engines_folder / folder / "stem.plan").is_file()


@pytest.mark.parametrize(
    "options",
    [
        ("--devices", "0"),
        ("--devices", "1"),
        ("--devices", "0,1", "--contexts", "3"),
        ("--devices", "0,1", "--contexts", "1", "--chunk", "4"),
        ("--devices", "0,1", "--shard", "frames"),
        ("--devices", "0,1", "--contexts", "auto"),
        ("--devices", "1,0", "--contexts", "auto", "--shard", "frames"),
    ],
    ids=" ".join,
)
def test_run_gives_the_cpus_masks(built: Package, clip: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "gpu").mkdir()
    run_clip(built, clip, tmp_path / "cpu", "--backend", "onnxruntime")
    facts = run_clip(built, clip, tmp_path / "gpu", *options)
    np.testing.assert_array_equal(masks(tmp_path / "gpu" / "masks"), masks(tmp_path / "cpu" / "masks"))
    assert (facts["backend"], facts["frames"], facts["warnings"]) == ("tensorrt", 8, [])
    assert facts["density"] == "1"
    assert facts["devices"] == [int(number) for number in options[1].split(",")]
    assert facts["shard"] == ("frames" if "frames" in options else "split-batches")


@pytest.mark.parametrize("shard", ["split-batches", "frames"])
def test_a_device_that_is_lost_on_the_way_is_told(
    gpus: Emulator, built: Package, clip: Path, tmp_path: Path, shard: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus.fail("run:compute", after=80, device=1, times=1000)
    facts = run_clip(built, clip, tmp_path, "--devices", "0,1", "--shard", shard)
    assert facts["frames"] == 8
    assert masks(tmp_path / "masks").shape == (8, *SIZE)
    (warning,) = facts["warnings"]
    assert warning.startswith("cuda:1 failed and was dropped: ")
    assert warning in capsys.readouterr().err


def test_an_only_device_that_is_lost_is_one_error_and_keeps_what_was_done(
    gpus: Emulator, built: Package, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus.fail("run:compute", after=60, times=1000)
    arguments = ["run", str(clip), "--package", str(built.folder), "--records", str(tmp_path / "frames.jsonl")]
    assert main([*arguments, "--masks", str(tmp_path / "masks")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "cuda:0" in error and "--resume" in error
    done = (tmp_path / "frames.jsonl").read_text().splitlines()
    assert 0 < len(done) == len(list((tmp_path / "masks").iterdir()))
    assert f"{len(done)} frames are done" in error


def test_compare_on_a_gpu(built: Package, tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    arguments = ["compare", "--package", str(built.folder), "--data", "streets", "--images", "2"]
    assert main([*arguments, "--devices", "0,1", "--json", str(path)]) == 0
    scores = json.loads(path.read_text())
    assert scores["backend"] == "tensorrt"
    assert scores["pixel_agreement"] > 0.999


def test_a_version_compatible_plan_runs_on_a_later_version(package: Package, clip: Path, tmp_path: Path) -> None:
    with Emulator(CARDS[:1], version="10.12.0"):
        assert main(["build", "--package", str(package.folder), "--version-compatible", "--device", "0"]) == 0
    try:
        for version in ("10.12.0", "10.13.0"):
            with Emulator(CARDS[:1], version=version):
                assert run_clip(package, clip, tmp_path)["backend"] == "tensorrt"
    finally:
        shutil.rmtree(package.engines_folder / "tensorrt-sm89-fp32")
        shutil.rmtree(package.engines_folder / "tensorrt-sm86-fp32", ignore_errors=True)


def test_a_chunk_that_the_plan_does_not_take_names_the_options(
    built: Package, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(clip), "--package", str(built.folder), "--chunk", "5"]) == 2
    error = capsys.readouterr().err
    assert "takes 1 to 4 at once: choose another --chunk, or build with --min-batches 1 --max-batches 5" in error


def test_devices_that_lack_a_plan_are_named(
    make_emulator: Callable[..., Emulator],  # noqa: F811
    built: Package,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(built.engines_folder / "tensorrt-sm86-fp32")
    for shard in ("split-batches", "frames"):
        arguments = ["run", str(clip), "--package", str(built.folder), "--devices", "0,1", "--shard", shard]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "RTX 3060" in error and "splitmerge build" in error


def test_a_plan_of_another_gpu_is_refused_before_tensorrt_sees_it(
    make_emulator: Callable[..., Emulator],  # noqa: F811
    package: Package,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_emulator([EmulatedDevice("A100", "8.0")])
    assert main(["run", str(clip), "--package", str(package.folder), "--backend", "tensorrt"]) == 2
    error = capsys.readouterr().err
    assert "splitmerge build" in error
    assert len(error.strip().splitlines()) == 1
