"""Trunks compiled natively, against PyTorch in float64 and ONNX Runtime."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from native_trunks import Made, engine_of, exact_logits, logits_of, run
from small_package import make_package

import engines.backends
import engines.native.engine
import engines.native.section
from engines.build import build_engines
from engines.load import load_engine
from engines.native.engine import NativeContext, compile_native
from engines.native.jit import lanes_here
from engines.native.plan import VERSION
from engines.native.trunk import Trunk, read_trunk
from runtime.executor import Executor
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.package import Package

LANES = [lanes for lanes in (4, 8, 16) if lanes <= lanes_here()]
Alter = Callable[[onnx.GraphProto], Any]


def residual(size: tuple[int, int] = (16, 24), width: int = 8) -> Trunk:
    """Two stages with a split between, sums with and without a convolution in the shortcut, and bottlenecks."""
    made = Made(width, size)
    made.add(width)
    kept = made.add(width, added="features")
    made.add(2 * width)
    shortcut = made.add(2 * width, taps=1, of=kept, relu=False)
    kept = made.add(2 * width, step=(2, 2), of="value2", added=shortcut)
    made.add(width, taps=1)
    made.add(width, step=(4, 2))
    made.add(2 * width, taps=1, added=kept)
    made.add(5, taps=1, relu=False)
    return made.trunk


def check(context: NativeContext, trunk: Trunk, features: Any, lost: float = 2e-5) -> None:
    """Labels and logits of each split batch are those of float64, but for rounding."""
    expected = exact_logits(trunk, features)
    scale = np.abs(expected).max()
    for one, exact in zip(features, expected, strict=True):
        (labels,) = run(context, trunk, one[None])
        np.testing.assert_allclose(logits_of(context, trunk), exact, rtol=0, atol=lost * scale)
        chosen = np.take_along_axis(exact, labels[None].astype(np.int64), axis=0)[0]
        assert (exact.max(0) - chosen).max() <= 2 * lost * scale
        assert (labels == exact.argmax(0)).mean() > 0.995


@pytest.mark.parametrize("lanes", LANES)
def test_a_trunk_is_float64s_but_for_rounding(lanes: int, tmp_path: Path) -> None:
    trunk = residual()
    context = engine_of(trunk, tmp_path, lanes).create_context()
    check(context, trunk, Made(8, (16, 24), seed=1).features(3))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    ("into", "out", "size", "step"),
    [
        (16, 16, (4, 8), (1, 1)),
        (16, 64, (8, 16), (1, 2)),
        (3, 20, (5, 7), (1, 1)),  # neither vectors nor tiles are full
        (32, 32, (6, 20), (2, 1)),
        (130, 48, (12, 12), (3, 4)),
        (16, 128, (1, 9), (1, 3)),
        (64, 16, (40, 72), (4, 4)),  # several blocks of tiles
        (7, 1, (2, 2), (2, 2)),
    ],
)
def test_a_convolution_of_any_size(
    into: int, out: int, size: tuple[int, int], step: tuple[int, int], lanes: int, tmp_path: Path
) -> None:
    """With ReLU or without, with a sum or without, three taps or one."""
    made = Made(into, size)
    first = made.add(out, step=step)
    made.add(out, step=step, relu=False)
    made.add(out, step=step, added=first)
    made.add(out, taps=1, added=first, relu=False)
    trunk = made.trunk
    check(engine_of(trunk, tmp_path, lanes).create_context(), trunk, made.features())


@pytest.mark.parametrize("rows", range(1, 34))
def test_any_number_of_pixels(rows: int, tmp_path: Path) -> None:
    """Products keep several rows in registers and take what is left by fewer."""
    made = Made(16, (rows, 1))
    for out in (16, 32, 64):
        made.add(out, taps=1)
    check(engine_of(made.trunk, tmp_path).create_context(), made.trunk, made.features())


def test_what_filtering_loses(tmp_path: Path) -> None:
    """Root mean square of what a convolution of 256 channels is off by, of its results' deviation."""
    made = Made(256, (16, 16))
    made.add(256, relu=False)
    features = made.features()
    context = engine_of(made.trunk, tmp_path).create_context()
    run(context, made.trunk, features)
    (exact,) = exact_logits(made.trunk, features)
    assert np.sqrt(np.mean((logits_of(context, made.trunk) - exact) ** 2)) < 8e-6 * exact.std()


def test_labels_are_the_first_of_equals(tmp_path: Path) -> None:
    made = Made(16, (3, 5))
    made.add(4, taps=1, relu=False)
    (step,) = made.steps
    step.weights[:] = 0
    step.bias[:] = [-2, 1, 1, 0]
    labels = run(engine_of(made.trunk, tmp_path).create_context(), made.trunk, made.features())
    assert (labels == 1).all()


@pytest.mark.parametrize("name", ["features", "weights"])
def test_nan_does_not_vanish(name: str, tmp_path: Path) -> None:
    """ReLU keeps it, and its neighbours are not touched by a convolution with one tap."""
    made = Made(16, (3, 5))
    made.add(16, taps=1)
    features = made.features()
    if name == "features":
        features[0, 3, 1, 2] = np.nan
    else:
        made.steps[0].weights[2, 5] = np.nan
    context = engine_of(made.trunk, tmp_path).create_context()
    run(context, made.trunk, features)
    found = np.isnan(logits_of(context, made.trunk))
    assert found[:, 1, 2].all() and found.sum() == 16 if name == "features" else found[2].all() and found.sum() == 15


@pytest.mark.parametrize("map_bytes", [1, 4 * 8 * 12 * 16, 4 * 16 * 24 * 16 - 1])
def test_large_maps_are_computed_part_by_part(map_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the same, for as many sections as there are."""
    trunk, features = residual(), Made(8, (16, 24), seed=2).features(2)
    engine = engine_of(trunk, tmp_path)
    context = engine.create_context()
    expected = run(context, trunk, features)
    monkeypatch.setattr(engines.native.section, "MAP_BYTES", map_bytes)
    parted = engine.create_context()
    assert parted._section is not None and parted._section._inner is not None
    assert (parted._section._inner._inner is not None) == (map_bytes == 1)
    np.testing.assert_array_equal(run(parted, trunk, features), expected)
    last = logits_of(parted, trunk)
    rows, columns = (whole // part for whole, part in zip((16, 24), last.shape[1:], strict=True))
    np.testing.assert_array_equal(last, logits_of(context, trunk)[:, rows - 1 :: rows, columns - 1 :: columns])


@pytest.mark.parametrize("block", [1, 5, 7, 1000])
def test_blocks_of_tiles_change_nothing(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, features = residual(), Made(8, (16, 24), seed=3).features()
    engine = engine_of(trunk, tmp_path)
    context = engine.create_context()
    run(context, trunk, features)
    monkeypatch.setattr(engines.native.section, "BLOCK", block)
    other = engine.create_context()
    run(other, trunk, features)
    np.testing.assert_array_equal(logits_of(other, trunk), logits_of(context, trunk))


def test_values_share_memory_and_none_too_early(tmp_path: Path) -> None:
    """A chain of many convolutions has as many maps as are alive at once; a value that is added late stays."""
    made = Made(16, (8, 8))
    early = made.add(16)
    for _ in range(6):
        made.add(16)
    made.add(16, added=early)
    made.add(3, taps=1, relu=False)
    context = engine_of(made.trunk, tmp_path).create_context()
    check(context, made.trunk, made.features())
    assert context._section is not None
    addresses = {value.ctypes.data for value in context._section.maps.values()}
    assert len(context._section.maps) == 10 and len(addresses) == 3


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
    right = engines.native.engine.read_trunk

    def wrong(path: Path) -> Trunk:
        first, *more = (trunk := right(path)).steps
        return replace(trunk, steps=(replace(first, weights=-first.weights), *more))

    monkeypatch.setattr(engines.native.engine, "read_trunk", wrong)
    build_engines(package)
    with pytest.raises(EngineError, match=r"gives \d+ of \d+ pixels other labels than ONNX Runtime"):
        build_engines(package, form="native")
    assert trunk_file(package, "onnx").exists()


def test_a_large_trunk_is_not_checked_and_says_so(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.native.engine, "_CHECKED_BYTES", 1000)
    *_, built = build_engines(package, form="native")
    assert built.build["checked"].startswith("not checked: maps of 12x18 are too large")


@pytest.mark.parametrize("form", ["cpu", "native"])
def test_forms_are_of_one_backend_and_precision(form: str, package: Package) -> None:
    with pytest.raises(ValueError, match=f"The form {form} is of fp32 engines for CPUs"):
        build_engines(package, precision="int8", form=form)


def test_a_package_without_a_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "p", cut=False)
    command = ["build", "--package", str(package.folder), "--backend", "onnxruntime", "--form", "native"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "only trunks are compiled natively: leave out --form native" in said


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


def altered_json(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


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


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"version": 99}', '{"version": 1, "steps": [{}]}'])
def test_a_plan_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    weights = tmp_path / "w"
    weights.write_bytes(bytes(64))
    with pytest.raises(EngineError, match="build it again"):
        engines.native.engine.NativeEngine(text.encode(), weights)


def test_weights_that_are_too_short(tmp_path: Path) -> None:
    engine_of(residual(), tmp_path)
    weights = tmp_path / "trunk.weights"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(EngineError, match="shorter than the compiled trunk needs"):
        engines.native.engine.NativeEngine((tmp_path / "trunk.native").read_bytes(), weights)


def node(graph: onnx.GraphProto, kind: str) -> onnx.NodeProto:
    return next(one for one in graph.node if one.op_type == kind)


def set_ints(one: onnx.NodeProto, **values: Any) -> None:
    for name, value in values.items():
        kept = [other for other in one.attribute if other.name != name]
        del one.attribute[:]
        one.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def swap_window(graph: onnx.GraphProto) -> None:
    """The transposition of the first split takes rows for columns."""
    turn = node(graph, "Transpose")
    (perm,) = turn.attribute
    perm.ints[1], perm.ints[2] = perm.ints[2], perm.ints[1]


def replace_kind(graph: onnx.GraphProto, kind: str, other: str) -> None:
    node(graph, kind).op_type = other


def second_output(graph: onnx.GraphProto) -> None:
    graph.output.append(onnx.helper.make_tensor_value_info(graph.node[0].output[0], onnx.TensorProto.FLOAT, None))


def earlier_output(graph: onnx.GraphProto) -> None:
    """Split batches of labels instead of merged ones."""
    merge = [one for one in graph.node if one.op_type == "Reshape"][-2]
    last = graph.node[-1]
    assert last.op_type == "Cast"
    last.input[0] = merge.input[0]


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (second_output, "1 inputs and 2 outputs"),
        (earlier_output, "is not the labels of all pixels in their order"),
        (swap_window, "ends a rearrangement that is no split or merge"),
        (lambda graph: replace_kind(graph, "Relu", "Sigmoid"), r"\(Sigmoid\) is none that is compiled natively"),
        (lambda graph: set_ints(node(graph, "ArgMax"), select_last_index=1), r"\(ArgMax\) is none"),
        (lambda graph: set_ints(node(graph, "Conv"), dilations=[2, 2]), "is no 1x1 or 3x3 one that keeps"),
        (lambda graph: set_ints(node(graph, "Conv"), auto_pad="SAME_UPPER"), "is no 1x1 or 3x3 one that keeps"),
    ],
)
def test_what_is_not_compiled_natively_is_told(alter: Alter, said: str, package: Package, tmp_path: Path) -> None:
    model = onnx.load(package.folder / "trunk.onnx")
    alter(model.graph)
    path = tmp_path / "altered.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=said):
        compile_native(path, package.parts("fp32")["trunk"], tmp_path / "trunk.native")


def test_a_relu_that_others_read_before_is_told(package: Package, tmp_path: Path) -> None:
    model = onnx.load(package.folder / "trunk.onnx")
    relu = node(model.graph, "Relu")
    later = [one for one in model.graph.node if one.op_type == "Conv"][1]
    assert later.input[0] != relu.input[0]
    second = next(one for one in model.graph.node if one.op_type == "Relu" and one is not relu)
    index = list(model.graph.node).index(second)
    again = onnx.helper.make_node("Relu", [second.output[0]], ["again"], name="again")
    for one in model.graph.node[index + 1 :]:
        for place, name in enumerate(one.input):
            if name == second.output[0]:
                one.input[place] = "again"
    model.graph.node.insert(index + 1, again)
    path = tmp_path / "altered.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=r"again \(Relu\) does not follow a convolution"):
        read_trunk(path)


def test_maps_that_cannot_be_parted(tmp_path: Path) -> None:
    made = Made(16, (9, 8))
    made.add(16, step=(2, 2))
    with pytest.raises(EngineError, match="maps of 9x8 cannot be parted into 2x2"):
        engine_of(made.trunk, tmp_path)


def test_a_processor_without_such_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, lanes in [({"avx512f": True, "fma": True}, 16), ({"fma": True}, 8), ({"neon": True}, 4)]:
        monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda features=features: features)
        assert lanes_here() == lanes

    def unknown() -> None:
        raise RuntimeError("cannot tell")

    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", unknown)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert lanes_here() == 4
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(EngineError, match="needs a processor with AVX-512, AVX2 with FMA, or NEON"):
        lanes_here()
