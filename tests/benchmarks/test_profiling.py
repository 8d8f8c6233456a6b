"""Counts of operations and bytes against those written out by hand, on graphs that ONNX Runtime really ran."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_package import make_package

from benchmarks.limits import Limits
from benchmarks.profiling.costs import Cost, Tensor, cost_of
from benchmarks.profiling.report import profile
from benchmarks.profiling.table import screen, totals
from benchmarks.profiling.trace import Operator, Profiled, operators_of, with_packed
from engines.build import build_engines
from splitmerge.cli import main
from splitmerge.errors import InputError


def f(*shape: int) -> Tensor:
    return Tensor("float", shape)


CASES = [
    # 2 * outputs * inputs per group * 3 * 3; weights and bias are read, too
    ("Conv", [f(1, 8, 5, 7), f(6, 8, 3, 3), f(6)], [f(1, 6, 5, 7)], 2 * 210 * 72, 4 * (280 + 432 + 6 + 210)),
    ("Conv", [f(1, 8, 5, 7), f(8, 1, 3, 3)], [f(1, 8, 5, 7)], 2 * 280 * 9, 4 * (280 + 72 + 280)),
    ("FusedConv", [f(2, 8, 5, 7), f(4, 4, 1, 1)], [f(2, 4, 5, 7)], 2 * 280 * 4, 4 * (560 + 16 + 280)),
    ("ConvTranspose", [f(1, 4, 3, 3), f(4, 5, 2, 2)], [f(1, 5, 6, 6)], 2 * 36 * 20, 4 * (36 + 80 + 180)),
    ("MatMul", [f(36, 6, 8), f(36, 8, 10)], [f(36, 6, 10)], 2 * 36 * 60 * 8, 4 * (36 * (48 + 80 + 60))),
    ("MatMul", [f(6, 8), f(3, 2, 8, 10)], [f(3, 2, 6, 10)], 2 * 360 * 8, 4 * (48 + 480 + 360)),  # broadcast
    ("MatMul", [f(5, 6, 8), f(8)], [f(5, 6)], 2 * 30 * 8, 4 * (240 + 8 + 30)),
    ("MatMul", [f(8), f(8, 10)], [f(10)], 2 * 10 * 8, 4 * (8 + 80 + 10)),
    ("Gemm", [f(6, 8), f(8, 10), f(10)], [f(6, 10)], 2 * 60 * 8, 4 * (48 + 80 + 10 + 60)),
    ("Gemm", [f(8, 6), f(10, 8)], [f(6, 10)], 2 * 60 * 8, 4 * (48 + 80 + 60)),  # both transposed
    ("FusedMatMul", [f(2, 8, 6), f(2, 8, 10)], [f(2, 6, 10)], 2 * 120 * 8, 4 * (96 + 160 + 120)),
    ("Add", [f(2, 3), f(3)], [f(2, 3)], 6, 4 * (6 + 3 + 6)),
    ("Relu", [f(2, 3)], [f(2, 3)], 6, 48),
    ("Sum", [f(2, 3)] * 3, [f(2, 3)], 12, 4 * 24),
    ("ArgMax", [f(1, 19, 4)], [Tensor("int64", (1, 4))], 76, 4 * 76 + 8 * 4),
    ("ReduceMean", [f(4, 5)], [f(4, 1)], 20, 4 * 24),
    ("Transpose", [f(2, 3)], [f(3, 2)], 0, 48),
    ("Reshape", [f(2, 3), Tensor("int64", (1,))], [f(6)], 0, 0),
    ("Slice", [f(100, 100), Tensor("int64", (2,))], [f(2, 3)], 0, 48),
    ("Cast", [Tensor("uint8", (6,))], [Tensor("float16", (6,))], 0, 18),
]


@pytest.mark.parametrize(("operator", "inputs", "outputs", "operations", "moved"), CASES)
def test_counts(operator: str, inputs: list[Tensor], outputs: list[Tensor], operations: int, moved: int) -> None:
    assert cost_of(operator, inputs, outputs) == Cost(operations, moved)


def test_quantised_convolutions_have_their_weights_elsewhere() -> None:
    x, w, one = Tensor("uint8", (1, 8, 5, 7)), Tensor("int8", (6, 8, 3, 3)), f()
    inputs = [x, one, Tensor("uint8", ()), w, one, Tensor("int8", ()), one, Tensor("uint8", ())]
    found = cost_of("QLinearConv", inputs, [Tensor("uint8", (1, 6, 5, 7))])
    assert found == Cost(2 * 210 * 72, 280 + 432 + 210 + 3 * 4 + 3)


def test_a_real_profile_gives_the_counts_of_the_graph(tmp_path: Path) -> None:
    """Convolution in two groups, a product of 36 matrices, and a Gemm that transposes its second factor."""
    rng = np.random.default_rng(0)
    shapes = {"w": (16, 8, 3, 3), "a": (36, 6, 16), "b": (10, 24)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    weights += [
        numpy_helper.from_array(np.array(s, np.int64), n) for n, s in {"flat": (16, 4), "rows": (36, 24)}.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", group=2, pads=[1] * 4),
        helper.make_node("Reshape", ["c", "flat"], ["r"], name="reshape"),
        helper.make_node("MatMul", ["a", "r"], ["m"], name="matmul"),
        helper.make_node("Reshape", ["m", "rows"], ["n"], name="rows_"),
        helper.make_node("Gemm", ["n", "b"], ["y"], name="gemm", transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 16, 2, 2)), ("y", (36, 10)))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    session = Profiled(tmp_path / "g.onnx", tmp_path, 1)
    for _ in range(3):
        session.run({"x": np.ones((1, 16, 2, 2), np.float32)})
    found = {op.name: op for op in session.operators("trunk", frames=2, per_frame=1)}
    assert {name: op.operations for name, op in found.items() if op.operations} == {
        "conv": 2 * (16 * 4) * (8 * 9),
        "matmul": 2 * (36 * 6 * 4) * 16,
        "gemm": 2 * (36 * 10) * 24,
    }
    assert found["matmul"].bytes == 4 * (36 * 6 * 16 + 16 * 4 + 36 * 6 * 4)
    assert found["conv"].calls == 1 and found["conv"].ms > 0


def test_weights_that_were_packed_are_put_back() -> None:
    x, w, bias = f(6, 8), f(8, 10), f(10)
    assert with_packed([x], [None, w]) == [x, w]
    assert with_packed([x, w], [None, w]) == [x, w]
    assert with_packed([x, bias], [None, w, bias]) == [x, w, bias]
    assert with_packed([x], [x, None]) == [x, x]  # a packed weight of the very shape of what is computed
    assert with_packed([w, x], [w, None]) == [w, x]
    assert with_packed([x, w], []) == [x, w]  # a node that the engine's file does not name


def test_times_are_medians_of_the_frames_that_count() -> None:
    def event(name: str, dur: int) -> dict[str, object]:
        shapes = {"input_type_shape": [{"float": [2, 3]}], "output_type_shape": [{"float": [2, 3]}]}
        arguments = {"op_name": "Relu", "node_index": name, **shapes}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": arguments}

    # two calls a frame; the first frame's are slow, and do not count
    events = [event("a", ms) for ms in (9000, 9000, 1000, 2000, 3000, 8000)]
    other = {"cat": "Session", "name": "model_run", "dur": 1, "args": {}}
    (found,) = operators_of("stem", [*events, other], {}, frames=2, per_frame=2)
    assert found == Operator("stem", "a", "Relu", 2, 2 * 2.5, 2 * 6, 2 * 48)


def test_totals_and_table() -> None:
    operators = [
        Operator("trunk", "a", "Conv", 16, 2.0, 4 * 10**8, 10**7),
        Operator("trunk", "b", "Conv", 16, 6.0, 4 * 10**8, 10**7),
        Operator("stem", "c", "Conv", 1, 2.0, 0, 0),
    ]
    trunk, stem = totals(operators)
    assert (trunk.calls, trunk.ms, trunk.operations, trunk.bytes) == (32, 8.0, 8 * 10**8, 2 * 10**7) and stem.ms == 2.0
    text = screen({"stem": 2.0, "trunk": 9.0}, 12.5, operators, Limits(200.0, "it", 10.0), top=1)
    line = next(line for line in text.splitlines() if line.startswith("  trunk Conv  "))
    # 0.8 G operations in 8 ms are 100 GFLOP/s, half of 200; 20 MB in 8 ms are 2.5 GB/s, a quarter of 10
    assert line.split() == ["trunk", "Conv", "32", "8.000", "80.0%", "0.8", "100.0", "50%", "20", "2.5", "25%"]
    assert "trunk Conv b" in text and "trunk Conv a" not in text and "11.00" in text


def test_a_package_is_profiled_stage_by_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "p")
    build_engines(package)
    assert main(["bench", "--profile", str(package.folder), "--frames", "2", "--json", str(tmp_path / "p.json")]) == 0
    report = json.loads((tmp_path / "p.json").read_text())
    assert list(report["stages_ms"]) == ["stem", "trunk", "placing labels"] and report["frame_ms"] > 0
    calls = {op["stage"]: op["calls"] for op in report["operators"]}
    assert calls == {"stem": 1, "trunk": 16}
    assert "placing labels" in capsys.readouterr().out
    with pytest.raises(InputError, match="--chunk 3 does not divide 16"):
        profile(package, "fp32", 3, 1)
    assert main(["bench", "--profile", str(package.folder), "--precision", "int8"]) == 2
    assert "no int8 graphs" in capsys.readouterr().err


@pytest.mark.parametrize("map_bytes", [16_000_000, 1])
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_trunk_that_is_compiled_natively(
    chunk: int, map_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each convolution with the products it makes, wherever it is computed: of 32x48 pixels in a split batch, 16x24
    behind the split."""
    monkeypatch.setattr("engines.native.section.MAP_BYTES", map_bytes)
    package = make_package(tmp_path / "p", size=(128, 192))
    build_engines(package, form="native")
    lanes = json.loads((package.engines_folder / "onnxruntime-fp32" / "trunk.json").read_text())["machine"]["lanes"]

    def vectors(channels: int) -> int:
        return -(-channels // lanes) * lanes

    found = profile(package, "fp32", chunk, 1)
    trunk = [op for op in found.operators if op.stage == "trunk"]
    assert found.stages["trunk"] > sum(op.ms for op in trunk) * 0.5 > 0
    assert [op.kind for op in trunk] == ["3x3 as F(4x8)"] * 3 + ["1x1", "labels"]
    tiles = [8 * 6, 4 * 4 * 3, 4 * 4 * 3]  # 4x8 each, of 32x48 pixels, and of 16x24 of four split batches
    for op, count, (into, out) in zip(trunk, tiles, [(4, 8), (8, 8), (8, 16)], strict=False):
        assert op.operations == 16 * 2 * count * 60 * vectors(into) * vectors(out)
        moved = 32 * 48 * (vectors(into) + vectors(out)) + 60 * vectors(into) * vectors(out)
        assert op.bytes == 16 * 4 * moved
    assert trunk[3].operations == 16 * 2 * 32 * 48 * vectors(16) * vectors(19)
    parts = 1 if map_bytes > 1 else 4
    assert [op.calls for op in trunk] == [16, *[16 * parts] * 4]


def test_a_package_without_a_cut(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p", cut=False)
    build_engines(package)
    found = profile(package, "fp32", 1, 1)
    assert list(found.stages) == ["model"] and {op.stage for op in found.operators} == {"model"}
