"""Packages whose trunks are compiled natively: building, loading, running, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from native_trunks import altered_json
from small_package import make_package

import engines.backends
import engines.native.building
import engines.native.section
from engines.build import build_engines
from engines.load import load_engine
from engines.native.engine import NativeContext, NativeEngine
from engines.native.plan import VERSION
from engines.native.reading import read_trunk
from engines.native.trunk import Trunk
from runtime.executor import Executor
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.files import sha256_of
from splitmerge.package import Package


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_package(tmp_path / "package")


def trunk_file(package: Package, suffix: str = "native") -> Path:
    return package.engines_folder / "onnxruntime-fp32" / f"trunk.{suffix}"


def test_a_package_runs_with_it(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels are those of the plain form, for any number of contexts and split batches at once."""
    frame = np.random.default_rng(0).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)
    build_engines(package)
    with Executor(package) as executor:
        expected = executor.segment(frame)
    command = ["build", "--package", str(package.folder), "--backend", "onnxruntime", "--form", "native"]
    assert main(command) == 0
    assert "trunk.native" in capsys.readouterr().out and not trunk_file(package, "onnx").exists()
    for contexts, chunk in [(1, 1), (3, 2), (2, 16)]:
        with Executor(package, contexts=contexts, chunk=chunk) as executor:
            np.testing.assert_array_equal(executor.segment(frame), expected)
    assert main(["inspect", str(package.folder)]) == 0
    assert capsys.readouterr().out.count(": valid") == 2
    notes = json.loads(trunk_file(package, "json").read_text())["build"]
    assert notes["form"] == "native" and notes["checked"].startswith("0 of ")
    build_engines(package)
    assert trunk_file(package, "onnx").exists() and not trunk_file(package).exists()


def test_other_labels_than_onnx_runtimes_are_refused(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    right = read_trunk

    def wrong(path: Path) -> Trunk:
        first, *more = (trunk := right(path)).steps
        return replace(trunk, steps=(replace(first, weights=-first.weights), *more))

    monkeypatch.setattr("engines.native.reading.read_trunk", wrong)
    build_engines(package)
    with pytest.raises(EngineError, match=r"gives \d+ of \d+ pixels other labels than ONNX Runtime"):
        build_engines(package, form="native")
    assert trunk_file(package, "onnx").exists()


def test_more_than_near_ties_is_refused(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """One label of 216."""
    right = NativeContext.enqueue

    def wrong(self: NativeContext, feeds: Any, outputs: Any) -> None:
        right(self, feeds, outputs)
        (labels,) = outputs.values()
        labels.array[0, 3, 4] ^= 1

    monkeypatch.setattr(NativeContext, "enqueue", wrong)
    with pytest.raises(EngineError, match="gives 1 of 216 pixels other labels than ONNX Runtime"):
        build_engines(package, form="native")


def test_what_llvm_refuses_is_told(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("cannot select")

    monkeypatch.setattr(NativeEngine, "create_context", refuse)
    with pytest.raises(EngineError, match=r"LLVM does not compile .*trunk.onnx \(cannot select\): build another form"):
        build_engines(package, form="native")


def test_other_parts_are_built_as_for_cpus(package: Package) -> None:
    model = onnx.load(package.folder / "stem.onnx")
    model.doc_string = "another"
    path = package.folder / "stem-cpu.onnx"
    onnx.save(model, path)
    stem = replace(package.parts("fp32")["stem"], file=path.name, sha256=sha256_of(path))
    package = Package.write_manifest(package.folder, replace(package.manifest, cpu={"stem": stem}))
    build_engines(package, form="native")
    sidecar = json.loads(trunk_file(package, "json").with_name("stem.json").read_text())
    assert sidecar["graph_sha256"] == stem.sha256 and trunk_file(package).exists()


def test_a_large_trunk_is_not_checked_and_says_so(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.native.building, "CHECKED_BYTES", 1000)
    *_, built = build_engines(package, form="native")
    assert built.build["checked"].startswith("not checked: maps of 12x18 are too large")


@pytest.mark.parametrize("form", ["cpu", "native"])
def test_forms_are_of_one_backend_and_precision(form: str, package: Package) -> None:
    with pytest.raises(ValueError, match=f"The form {form} is of fp32 engines for CPUs"):
        build_engines(package, precision="int8", form=form)


def test_a_network_with_splits_and_no_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "p", cut=False)
    command = ["build", "--package", str(package.folder), "--backend", "onnxruntime", "--form", "native"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model.onnx has no native form: its node" in said
    assert not list(package.engines_folder.iterdir())


@pytest.mark.parametrize("missing", ["llvmlite", "onnx"])
def test_what_is_not_installed(
    missing: str, package: Package, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building chooses among the other forms; what was built needs the compiler alone."""
    build_engines(package, form="native")
    installed = engines.backends.is_installed
    monkeypatch.setattr(engines.backends, "is_installed", lambda module: module != missing and installed(module))
    if missing == "llvmlite":
        with pytest.raises(EngineError, match=r"needs llvmlite, which is not installed \(pip install '.\[native\]'\)"):
            load_engine(package, "trunk")
    else:
        load_engine(package, "trunk").close()
    command = ["build", "--package", str(package.folder), "--backend", "onnxruntime"]
    assert main([*command, "--form", "native"]) == 2
    assert f"Native engines need {missing}, which is not installed" in capsys.readouterr().err
    assert main(command) == 0 and trunk_file(package, "onnx").exists()


@pytest.mark.parametrize("missing", ["onnx", "torch"])
def test_running_does_without_what_only_building_needs(missing: str, package: Package) -> None:
    build_engines(package, form="native")
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from runtime.executor import Executor\n"
        "from splitmerge.package import Package\n"
        "with Executor(Package.open(Path(sys.argv[1]))) as executor:\n"
        "    print(executor.segment(np.zeros((*executor.package.manifest.input.size, 3), np.uint8)).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, package.folder], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{package.manifest.input.size}\n", done.stderr


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: altered_json(p.with_suffix(".json"), machine={"native": VERSION}), "another architecture"),
        (
            lambda p: altered_json(
                p.with_suffix(".json"),
                machine=json.loads(p.with_suffix(".json").read_text())["machine"] | {"native": VERSION + 1},
            ),
            "another version of the native form",
        ),
        (lambda p: p.write_bytes(p.read_bytes() + b" "), "altered after it was built"),
        (lambda p: p.unlink(), "the file is missing"),
        (lambda p: p.with_suffix(".weights").unlink(), "trunk.weights, which has its weights, is missing"),
        (lambda p: p.with_suffix(".weights").write_bytes(b"1234"), "trunk.weights, which has its weights, was altered"),
    ],
)
def test_what_is_not_what_was_built_is_refused(spoil: Callable[[Path], Any], said: str, package: Package) -> None:
    build_engines(package, form="native")
    spoil(trunk_file(package))
    with pytest.raises(EngineError, match=said):
        load_engine(package, "trunk")
