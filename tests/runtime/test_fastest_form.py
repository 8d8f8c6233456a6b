"""Building the faster form for this CPU, and the way to share frames out that was measured then."""

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_package import make_package

import runtime.cpu_form
from engines.build import build_engines
from engines.load import load_engine
from engines.onnxruntime_engine import cores
from engines.sidecar import NATIVE, read_sidecar
from runtime.cpu_form import Sharing, build_fastest, remembered
from runtime.executor import Executor
from runtime.options import add_engine_arguments, open_executor
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.files import sha256_of
from splitmerge.package import Package


def with_cpu_form(folder: Path, **options: Any) -> Package:
    """A small package whose trunk has a second form, which computes the same with an operator more."""
    package = make_package(folder, **options)
    part = "trunk" if package.manifest.cut else "model"
    graph = package.parts("fp32")[part]
    model = onnx.load(package.path(graph))
    last = model.graph.node[-1]
    between = onnx.helper.make_node("Identity", [last.input[0]], ["between"], name="between")
    last.input[0] = "between"
    model.graph.node.insert(len(model.graph.node) - 1, between)
    path = folder / f"{part}-cpu.onnx"
    onnx.save(model, path)
    form = replace(graph, file=path.name, sha256=sha256_of(path))
    Package.write_manifest(folder, replace(package.manifest, cpu={part: form}))
    return Package.open(folder)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return with_cpu_form(tmp_path / "package")


def engine_of(package: Package, part: str = "trunk") -> Path:
    return package.engines_folder / "onnxruntime-fp32" / f"{part}.onnx"


def built_from(package: Package, part: str = "trunk") -> str:
    """Which form of the part the engine was built from."""
    if engine_of(package, part).with_suffix(NATIVE).exists():
        return "native"
    plain, cpu = package.parts("fp32")[part].sha256, package.manifest.cpu[part].sha256
    return {plain: "plain", cpu: "cpu"}[read_sidecar(engine_of(package, part)).graph_sha256]


def plant(monkeypatch: pytest.MonkeyPatch, seconds: Callable[["Slowed"], float]) -> list["Slowed"]:
    """Executors that take this long for a frame; those that were opened."""
    opened: list[Slowed] = []

    class Planted(Slowed):
        def segment(self, *_: Any, **__: Any) -> Any:
            assert self.open
            time.sleep(seconds(self))

    monkeypatch.setattr(
        runtime.cpu_form, "Executor", lambda *given, **more: opened.append(Planted(*given, **more)) or opened[-1]
    )
    return opened


class Slowed(Executor):
    """An executor that knows which form it runs, its threads, and whether it is open."""

    def __init__(self, package: Package, *given: Any, **more: Any) -> None:
        super().__init__(package, *given, **more)
        part = "trunk" if package.manifest.cut else "model"
        self.form, self.threads, self.open = built_from(package, part), more.get("threads"), True

    def close(self) -> None:
        super().close()
        self.open = False


@pytest.mark.parametrize(
    ("faster", "cut"), [("plain", True), ("cpu", True), ("native", True), ("plain", False), ("cpu", False)]
)
def test_the_faster_form_is_kept(faster: str, cut: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = with_cpu_form(tmp_path / "p", cut=cut)
    opened = plant(monkeypatch, lambda one: 0.001 if one.form == faster else 0.03)
    built, said = build_fastest(package)
    part = "trunk" if cut else "model"
    assert built_from(package, part) == faster
    assert said.startswith(f"form {faster} (plain ")
    assert not any(one.open for one in opened)
    notes = read_sidecar(engine_of(package, part)).build
    assert notes["form"] == faster and set(notes["form_ms"]) == {"plain", "cpu", *(["native"] if cut else [])}
    assert all((ms < 20) == (form == faster) for form, ms in notes["form_ms"].items())
    assert [one.part for one in built] == (["stem", "trunk"] if cut else ["model"])
    assert engine_of(package, part).with_name("tuning.json").exists()


@pytest.mark.parametrize("form", ["plain", "cpu", "native"])
def test_the_form_that_is_asked_for(form: str, package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--package", str(package.folder), "--backend", "onnxruntime", "--form", form]) == 0
    assert built_from(package) == form
    said = capsys.readouterr().out
    assert "ways tried" in said and "form plain" not in said and "form cpu" not in said
    load_engine(package, "trunk", "onnxruntime", "fp32", 1, 1).close()
    assert main(["inspect", str(package.folder)]) == 0
    assert capsys.readouterr().out.count(": valid") == 2


def test_all_forms_give_the_same_labels(package: Package) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)
    found = []
    for form in ("plain", "cpu", "native"):
        build_fastest(package, form)
        with Executor(package) as executor:
            found.append(executor.segment(frame))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_a_trunk_with_no_native_form_is_built_in_another(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise EngineError("it has a step that is none of those")

    monkeypatch.setattr("engines.native.reading.read_trunk", refuse)
    _, said = build_fastest(package)
    assert said.startswith(("form plain (plain ", "form cpu (plain "))
    assert f"; {package.folder / 'trunk.onnx'} has no native form: it has a step that is none of those; " in said
    without = make_package(package.folder.with_name("without"))
    _, said = build_fastest(without)
    assert said.startswith(f"{without.folder / 'trunk.onnx'} has no native form: ") and "form plain" not in said
    before = read_sidecar(engine_of(package)).graph_sha256
    with pytest.raises(EngineError, match="has no native form: it has a step that is none of those"):
        build_fastest(package, "native")
    assert read_sidecar(engine_of(package)).graph_sha256 == before


def test_a_package_without_that_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "p")
    build_engines(package)
    before = engine_of(package).read_bytes()
    command = ["build", "--package", str(package.folder), "--backend", "onnxruntime", "--form"]
    assert main([*command, "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "has no graphs for CPUs: export it with --target cpu" in said
    assert engine_of(package).read_bytes() == before
    assert main([*command, "plain"]) == 0


def test_forms_are_of_fp32_on_a_cpu(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", "--package", str(package.folder), "--backend", "onnxruntime", "--precision", "int8"]
    assert main([*command, "--form", "cpu"]) == 2
    assert "chooses among fp32 graphs for CPUs, and int8 for onnxruntime is built" in capsys.readouterr().err


def test_altered_graphs_are_refused(package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    path = package.folder / "trunk-cpu.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    assert main(["build", "--package", str(package.folder)]) == 2
    assert "trunk-cpu.onnx is not the file that this package was made with" in capsys.readouterr().err
    path.unlink()
    assert main(["inspect", str(package.folder)]) == 2
    assert "trunk-cpu.onnx is missing" in capsys.readouterr().err


def test_engines_of_another_graph_are_refused(package: Package) -> None:
    build_engines(package, form="cpu")
    sidecar = engine_of(package).with_suffix(".json")
    value = json.loads(sidecar.read_text())
    for part, sha256 in [("stem", package.manifest.cpu["trunk"].sha256), ("trunk", "0" * 64)]:
        other = sidecar.with_name(f"{part}.json")
        own = other.read_text()
        other.write_text(json.dumps({**value, "part": part, "graph_sha256": sha256}))
        with pytest.raises(EngineError, match="built from another graph"):
            load_engine(package, part, "onnxruntime", "fp32", 1, 1)
        other.write_text(own)


def test_the_search_ends_in_time_and_keeps_the_fastest(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.cpu_form, "cores", lambda: 4)
    best = Sharing(2, 2, 2)
    opened = plant(monkeypatch, lambda one: 0.001 if (one.contexts, one.threads, one.chunk) == (2, 2, 2) else 0.02)
    _, said = build_fastest(package, "cpu")
    tried = [Sharing(one.contexts, one.threads or 0, one.chunk) for one in opened]
    ways = [Sharing(c, 4 // c, chunk) for chunk in (1, 2, 4) for c in (4, 2, 1)]
    assert tried[:9] == ways and set(tried[9:18]) == set(tried[18:]) == set(ways)
    assert tried[9] == tried[18] == best, "later rounds begin with the fastest"
    assert remembered(package) == best and "2 contexts of 2 threads, 2 split batches at once" in said
    kept = json.loads(engine_of(package).with_name("tuning.json").read_text())
    assert [one["contexts"] for one in kept["tried_ms"]] == [one.contexts for one in tried[:9]]
    opened.clear()
    monkeypatch.setattr(runtime.cpu_form, "_SECONDS", 0.05)
    began = time.perf_counter()
    build_fastest(package, "cpu")
    assert 1 <= len(opened) <= 3 and time.perf_counter() - began < 5


def test_a_slow_moment_of_the_machine_decides_nothing(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.cpu_form, "cores", lambda: 4)

    def seconds(one: Slowed) -> float:
        if (one.contexts, one.chunk) != (2, 2):
            return 0.02
        return 0.05 if opened.index(one) < 9 else 0.001

    opened = plant(monkeypatch, seconds)
    build_fastest(package, "cpu")
    assert remembered(package) == Sharing(2, 2, 2)


def test_no_more_contexts_than_split_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.cpu_form, "cores", lambda: 8)
    package = make_package(tmp_path / "p", window=(1, 2))
    assert list(runtime.cpu_form._ways(package, "cpu")) == [Sharing(2, 4, 1), Sharing(1, 8, 1), Sharing(1, 8, 2)]
    assert list(runtime.cpu_form._ways(package, "native")) == [Sharing(2, 4, 1)]
    package = make_package(tmp_path / "q", window=(2, 4))
    assert list(runtime.cpu_form._ways(package, "native")) == [Sharing(8, 1, 1), Sharing(4, 2, 1)]


@pytest.mark.parametrize(("gain", "chosen"), [(0.5, True), (1.01, True), (1.05, False)])
def test_a_network_of_one_graph_takes_memory_unless_that_is_slower(
    gain: float, chosen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = with_cpu_form(tmp_path / "p", cut=False)
    opened = plant(monkeypatch, lambda one: 0.05 * (gain if one._roomy else 1))
    _, said = build_fastest(package, "plain")
    fastest_first = [(cores(), chosen), (cores(), not chosen)]
    assert [(one.threads, one._roomy) for one in opened[:2]] == [(cores(), True), (cores(), False)]
    if gain < 0.9:  # else noise may order them
        assert [(one.threads, one._roomy) for one in opened[2:]] == 2 * fastest_first
    assert remembered(package) == Sharing(1, cores(), 1, chosen)
    assert ("threads that spin" in said) == chosen and "2 ways tried" in said
    with open_executor(package, options()) as executor:
        assert isinstance(executor, Executor)
        (whole,) = executor._turns.idle
        settings = whole._context._session.get_session_options()
    assert settings.enable_mem_pattern == chosen
    spins = settings.get_session_config_entry("session.intra_op.allow_spinning")
    assert spins == str(int(chosen)) and settings.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(("second", "chosen"), [(96.9, 2), (97.1, 1)])
def test_three_per_cent_are_a_gain(
    second: float, chosen: int, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what each way took at best in its turns."""
    monkeypatch.setattr(runtime.cpu_form, "cores", lambda: 1)
    turns = {1: iter([130, 100, 140]), 2: iter([second + 9, 120, second]), 4: iter([300.0, 200, 250])}

    def planned(runs: dict[str, Any], *_: Any) -> dict[str, float]:
        (segment,) = runs.values()
        return {"": next(turns[segment.__self__.chunk])}

    monkeypatch.setattr(runtime.cpu_form, "in_turn", planned)
    build_fastest(package, "cpu")
    assert remembered(package) == Sharing(1, 1, chosen)


def options(*given: str) -> Namespace:
    parser = ArgumentParser()
    add_engine_arguments(parser)
    parser.add_argument("--deadline-ms", type=float, default=0)
    return parser.parse_args(["--backend", "onnxruntime", *given])


def tune(package: Package, **changed: Any) -> Path:
    build_engines(package)
    path = engine_of(package).with_name("tuning.json")
    path.write_text(json.dumps({"contexts": 3, "threads": 1, "chunk": 2, "roomy": False, "cores": cores()} | changed))
    return path


def test_what_was_measured_is_used_where_nothing_is_asked_for(package: Package) -> None:
    tune(package)
    with open_executor(package, options()) as executor:
        assert isinstance(executor, Executor)
        assert (executor.contexts, executor.chunk, executor._threads) == (3, 2, 1)


@pytest.mark.parametrize(
    "asked",
    [
        "--contexts 2",
        "--contexts auto",
        "--chunk 1",
        "--density 1/4",
        "--deadline-ms 5",
        "--in-flight 2",
        "--devices 0,1",
    ],
)
def test_what_is_asked_for_comes_first(asked: str, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(package)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr("runtime.executor.Executor", lambda *_, **given: made.append(given))
    monkeypatch.setattr("runtime.tuning.tune_contexts", lambda make: Namespace(executor=make(1)))
    monkeypatch.setattr("builtins.print", lambda *_: None)
    arguments = options(*asked.split())
    from runtime.options import _executor

    _executor(package, arguments, arguments.devices)
    assert made and (made[0]["chunk"], made[0]["threads"]) == (1, None) and made[0]["contexts"] in (1, 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"contexts": 0}, {"chunk": -1}, {"threads": None}, {"threads": "many"}, {"chunk": 1.5}, {"contexts": True},
        {"contexts": float("inf")}, {"cores": cores() + 1}, {"cores": None},
        {"roomy": None}, {"roomy": 1}, {"roomy": "yes"},
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_ignored(changed: dict[str, Any], package: Package) -> None:
    tune(package, **changed)
    assert remembered(package) is None
    with open_executor(package, options()) as executor:
        assert isinstance(executor, Executor) and (executor.contexts, executor.chunk) == (2, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"contexts": 2}', "\xff"])
def test_a_broken_file_is_ignored(text: str, package: Package) -> None:
    path = tune(package)
    assert remembered(package) == Sharing(3, 1, 2)
    path.write_text(text, "latin-1")
    assert remembered(package) is None
    path.unlink()
    assert remembered(package) is None
    path.mkdir()
    assert remembered(package) is None


def test_building_again_forgets_what_was_measured(package: Package) -> None:
    tune(package)
    build_engines(package)
    assert remembered(package) is None
