"""What is said of each engine in a package, for each GPU here."""

import json
from pathlib import Path

import pytest
from plans import HEADERS, RTX_3060, RTX_4090, VERSIONS, put_engines
from small_package import make_package

from engines import listing
from engines.listing import FoundEngine, list_engines
from engines.machine import Gpu
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.package import Package


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "p")


def here(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, installed: bool = True) -> None:
    """Make up a machine with these GPUs and both TensorRTs."""
    monkeypatch.setattr(listing, "ask_driver", lambda: (list(gpus), []))
    monkeypatch.setattr(listing, "find_version", lambda name: VERSIONS[name] if installed else None)
    monkeypatch.setattr(listing, "loaded_version", VERSIONS.__getitem__)


def by_folder(package: Package) -> dict[str, FoundEngine]:
    return {engine.path.parent.name: engine for engine in list_engines(package) if engine.path.stem == "trunk"}


def test_each_gpu_has_its_verdict(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    here(monkeypatch, RTX_4090, RTX_3060)
    put_engines(package, "tensorrt", "8.9")
    put_engines(package, "tensorrt-rtx", "8.6")
    found = by_folder(package)
    ada = found["tensorrt-sm89-fp32"]
    assert (ada.problem, ada.target) == (None, "tensorrt 10.16.1.11, compute capability 8.9")
    assert ada.gpus["GPU 0 (NVIDIA GeForce RTX 4090)"] is None
    refused = ada.gpus["GPU 1 (NVIDIA GeForce RTX 3060)"]
    assert refused is not None and "ahead of time for compute capability 8.9" in refused
    ampere = found["tensorrt-rtx-sm86-fp32"]
    assert [reason is None for reason in ampere.gpus.values()] == [False, True]


def test_the_types_of_convolutions(package: Package) -> None:
    folder = put_engines(package, "tensorrt", "8.9")
    assert by_folder(package)["tensorrt-sm89-fp32"].convolutions == {"Half": 3, "Float": 1}
    path = folder / "trunk.json"
    for told in (None, [], {"Half": "many"}):
        path.write_text(json.dumps({**json.loads(path.read_text()), "build": {"convolutions": told}}))
        assert by_folder(package)["tensorrt-sm89-fp32"].convolutions == {}


def test_without_a_gpu_a_plan_is_only_compared_with_its_description(
    monkeypatch: pytest.MonkeyPatch, package: Package
) -> None:
    here(monkeypatch)
    put_engines(package, "tensorrt", "8.9")
    put_engines(package, "tensorrt", "8.6", multiprocessors="many")
    found = by_folder(package)
    assert found["tensorrt-sm89-fp32"].verdict == "made from this package, and there is no GPU here to run it"
    assert found["tensorrt-sm86-fp32"].verdict == ("cannot be used, its description says 'many' for multiprocessors")


def test_a_backend_that_is_not_here(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    put_engines(package, "tensorrt", "8.9")
    here(monkeypatch, RTX_4090, installed=False)
    assert "tensorrt is not installed" in by_folder(package)["tensorrt-sm89-fp32"].verdict

    def broken(name: str) -> str:
        raise EngineError("The module tensorrt cannot be imported (libnvinfer.so.10: cannot open): install it anew.")

    here(monkeypatch, RTX_4090)
    monkeypatch.setattr(listing, "loaded_version", broken)
    assert "libnvinfer.so.10: cannot open" in by_folder(package)["tensorrt-sm89-fp32"].verdict


def test_damaged_engines_and_strangers(monkeypatch: pytest.MonkeyPatch, package: Package) -> None:
    here(monkeypatch, RTX_4090)
    folder = put_engines(package, "tensorrt", "8.9")
    (folder / "trunk.plan").write_bytes(HEADERS["tensorrt"][:-1])
    (folder / "stem.json").write_text("{}")
    (folder / "branch.plan").write_bytes(HEADERS["tensorrt"])
    told = json.loads((folder / "trunk.json").read_text())
    (folder / "branch.json").write_text(json.dumps({**told, "part": "branch"}))
    found = {engine.path.stem: engine.verdict for engine in list_engines(package)}
    assert found["trunk"] == "cannot be used, the file was altered after it was built"
    assert "does not describe an engine" in found["stem"]
    assert found["branch"] == "cannot be used, the package has no fp32 branch"


@pytest.mark.parametrize("precision", ["int4", 8, ["fp32"]])
def test_a_precision_that_cannot_be(package: Package, precision: object) -> None:
    folder = put_engines(package, "tensorrt", "8.9")
    for part in ("stem", "trunk"):
        path = folder / f"{part}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "precision": precision}))
    assert all(engine.problem for engine in list_engines(package))


def test_inspect_prints_a_line_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch, package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here(monkeypatch, RTX_4090, RTX_3060)
    put_engines(package, "tensorrt", "8.9")
    assert main(["inspect", str(package.folder), "--json", str(tmp_path / "i.json")]) == 0
    text = capsys.readouterr().out
    assert "tensorrt-sm89-fp32/trunk.plan, 0.0 MiB, tensorrt 10.16.1.11, compute capability 8.9" in text
    assert text.count("convolutions: 3 Half, 1 Float: on 2 GPUs") == 2
    assert text.count("GPU 0 (NVIDIA GeForce RTX 4090): valid") == 2
    assert text.count("GPU 1 (NVIDIA GeForce RTX 3060): cannot be used, it was built ahead of time") == 2
    engines = json.loads((tmp_path / "i.json").read_text())["engines"]
    assert engines[0]["gpus"]["GPU 0 (NVIDIA GeForce RTX 4090)"] is None
    here(monkeypatch, RTX_4090)
    assert main(["inspect", str(package.folder)]) == 0
    assert "1 Float: valid on GPU 0 (NVIDIA GeForce RTX 4090)" in capsys.readouterr().out
