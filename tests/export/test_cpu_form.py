"""Graphs in the form for CPUs against the plain ones: random graphs, and those in which values are needed both ways."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from cpu_graphs import Graph, check, graphs, input_of, run, tiled
from export_samples import ort
from hypothesis import given, settings
from hypothesis import strategies as st

from export.cpu import tiling
from export.cpu.emitter import Emitter
from export.cpu.form import gains
from export.cpu.tiling import tiling_of
from export.nodes import sizes


@settings(deadline=None, max_examples=25)
@given(graphs(), st.integers(1, 3))
def test_random_graphs(model: ir.Model, batch: int) -> None:
    check(model, (batch,))


@pytest.mark.slow
@settings(deadline=None, max_examples=1000)
@given(graphs(operators=20), st.integers(1, 3))
def test_many_random_graphs(model: ir.Model, batch: int) -> None:
    check(model, (batch,))


def block(between: bool = False) -> ir.Model:
    """A residual block, its shortcut read in the plain layout before it is added, and so is what it is made from."""
    build = Graph(4, 8, 16)
    first = build.relu(build.conv(build.x, 4))
    shortcut = build.conv(first, 4, 1)
    branch = build.conv(shortcut, 4)
    others = [build.maximum(first), build.maximum(shortcut)] if between else []
    return build.model(build.relu(build.add(branch, shortcut)), *others)


def block_read_plain() -> ir.Model:
    return block(between=True)


def two_branches() -> ir.Model:
    """Both summands are convolutions: one takes the sum, the other stands for itself."""
    build = Graph(3, 6, 12)
    joined = build.add(build.conv(build.x, 4), build.conv(build.x, 4))
    return build.model(build.relu(joined), joined)


def read_twice() -> ir.Model:
    build = Graph(3, 6, 12)
    value = build.conv(build.x, 3)
    return build.model(build.add(value, build.relu(value)), build.add(build.conv(value, 3), value))


def twice_the_same() -> ir.Model:
    build = Graph(3, 6, 12)
    value = build.conv(build.x, 3)
    return build.model(build.add(value, value))


def returned_before_relu() -> ir.Model:
    build = Graph(3, 6, 12)
    value = build.conv(build.x, 3)
    return build.model(value, build.conv(build.relu(value), 3))


def other_orders() -> ir.Model:
    """Splits that were fused to 4x4 where tiled, next to two by 2x2 that others read between; each entered twice."""
    build = Graph(4, 16, 32)
    plain = build.maximum(build.split(build.split(build.x)))
    fused = build.split(build.split(build.conv(build.x, 4)))
    values = [build.conv(plain, 4), build.add(fused, plain), build.conv(plain, 4)]
    values += [build.add(plain, build.conv(values[0], 4)), build.add(build.conv(fused, 4), plain)]
    return build.model(*map(build.merged, values))


def shared_splits() -> ir.Model:
    build = Graph(4, 16, 16)
    once = build.split(build.x)
    deeper = build.conv(build.split(once), 4)
    other = build.conv(build.split(build.conv(once, 4)), 4)
    values = [build.add(deeper, other), build.maximum(once), build.add(build.conv(deeper, 4), other)]
    return build.model(*map(build.merged, values))


def unusual_argmax() -> ir.Model:
    """Over rows of a label map, and with the operator's own defaults, batches and a dimension of size 1."""
    build = Graph(4, 8, 16)
    scores = build.conv(build.x, 4)
    labels = build.argmax(scores)
    of_rows = build.node("ArgMax", [labels], (None, 16), axis=1, keepdims=0)
    kept = build.node("ArgMax", [scores], (None, 1, 8, 16), ir.DataType.INT64, axis=1)
    negative = build.node("ArgMax", [scores], (None, 8, 16), ir.DataType.INT64, axis=-3, keepdims=0)
    return build.model(of_rows, kept, negative)


def labels_of_labels() -> ir.Model:
    """The last of equal numbers, split and merged as a label map."""
    build = Graph(3, 8, 24)
    zero = build.node("Clip", [build.conv(build.x, 3), build.constant(np.float32(0)), build.constant(np.float32(0))])
    last = build.node("ArgMax", [zero], (None, 8, 24), ir.DataType.INT64, axis=1, keepdims=0, select_last_index=1)
    return build.model(build.merged(build.split(build.split(last), (1, 3))))


def constants() -> ir.Model:
    """A convolution of a constant, and sums with constants."""
    build = Graph(4, 8, 16)
    image = build.constant(build.normal(1, 4, 8, 16))
    build.layouts[image] = ()
    once = build.conv(image, 4)
    once.shape = ir.Shape([1, 4, 8, 16])
    value = build.node("Add", [build.conv(build.x, 4), image])
    return build.model(
        build.node("Add", [value, once]),
        build.node("Add", [build.constant(np.float32(2)), value], (None, 4, 8, 16), ir.DataType.FLOAT),
    )


def half_in_between() -> ir.Model:
    build = Graph(4, 8, 16)
    value = build.node("Cast", [build.conv(build.x, 4)], dtype=ir.DataType.FLOAT16, to=ir.DataType.FLOAT16.value)
    value = build.node("Neg", [value])
    return build.model(build.conv(build.node("Cast", [value], dtype=ir.DataType.FLOAT, to=1), 4))


CASES = [
    block,
    block_read_plain,
    two_branches,
    read_twice,
    twice_the_same,
    returned_before_relu,
    other_orders,
    shared_splits,
    unusual_argmax,
    labels_of_labels,
    constants,
    half_in_between,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_values_that_are_needed_both_ways(case: Callable[[], ir.Model]) -> None:
    check(case(), (1, 3))


def test_a_summand_in_other_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of split batches leave rows short; strips are added where a value enters, but not by the split."""
    monkeypatch.setattr(tiling, "LONGEST", 4)
    monkeypatch.setattr(tiling, "SHORTEST", 4)
    build = Graph(4, 16, 32)
    split, entered = build.split(build.conv(build.x, 4)), build.maximum(build.split(build.x))
    before = tiling_of(4, 16, 32, ())
    assert before.strips == before.split(Emitter("e"), build.x, (2, 2))[1].strips == 1
    assert tiling_of(4, 8, 16, ((2, 2),)).strips == 2
    both = [build.add(build.conv(split, 4), build.conv(entered, 4)), build.add(build.conv(entered, 4), split)]
    check(build.model(*map(build.merged, both)), (1, 3))


@pytest.mark.parametrize("case", [block, block_read_plain, two_branches, read_twice, other_orders])
def test_every_convolution_is_tiled_once(case: Callable[[], ir.Model]) -> None:
    """Nothing is computed in both forms: no convolution is left, and ReLU and sums only follow within the bands."""
    model = case()
    convolutions = [sizes(node.inputs[1])[2] for node in model.graph if node.op_type == "Conv" and node.inputs[1]]
    part, count = tiled(model)
    assert count == convolutions.count(3)
    assert not any(node.op_type == "Conv" for node in part.graph)
    assert sum(node.op_type in ("MatMul", "Gemm") for node in part.graph.all_nodes()) == 5 * count + convolutions.count(
        1
    )


def test_residual_blocks_stay_tiled() -> None:
    """One transposition enters and one leaves; in between are splits alone."""
    build = Graph(4, 16, 32)
    value = build.conv(build.x, 4)
    for _ in range(2):
        limits = [build.constant(np.float32(0)), build.constant(np.float32(6))]
        branch = build.node("Clip", [build.conv(value, 4), *limits])
        value = build.split(build.relu(build.add(build.conv(branch, 4), value)))
    labels = build.argmax(build.conv(value, 5, 1))
    part, count = check(build.model(build.merged(labels)))
    assert count == 5
    kinds = [node.op_type for node in part.graph]
    assert kinds.count("Transpose") == 1 + 2 + 1 + 1  # in, two splits, out, and the merge that follows
    assert kinds.count("Clip") == 2 and "Conv" not in kinds


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (16, 1), (7, 11), (2, 12), (31, 20), (12, 62)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    build = Graph(2, *size)
    value = build.conv(build.conv(build.x, 3), 2)
    assert check(build.model(build.relu(build.add(value, build.x))))[1] == 2


@pytest.mark.parametrize("windows", [[(2, 2), (2, 2), (2, 2), (2, 2)], [(3, 1), (1, 2), (2, 3)], [(2, 3), (4, 2)]])
def test_splits_of_any_window(windows: list[tuple[int, int]]) -> None:
    """More splits than the tensors of a GPU could have dimensions for, with a value that leaves at each level."""
    height, width = (2 * int(np.prod([window[axis] for window in windows])) for axis in (0, 1))
    build = Graph(2, height, 2 * width)
    value, left = build.x, []
    for window in windows:
        value = build.split(build.conv(value, 2), window)
        left.append(build.maximum(value))
    _, count = check(build.model(*map(build.merged, [build.conv(value, 2), *left])))
    assert count == len(windows) + 1


@pytest.mark.parametrize("changed", [{"stride": 2}, {"group": 4}, {"size": 1}, {"size": 5}])
def test_other_convolutions_are_left_alone(changed: dict[str, int]) -> None:
    build = Graph(4, 8, 16)
    _, count = check(build.model(build.conv(build.x, 4, **changed)))
    assert count == 0


@pytest.mark.parametrize(
    "attributes", [{"dilations": [2, 2], "pads": [2] * 4}, {"pads": [0, 1, 2, 1]}, {"auto_pad": "SAME_UPPER"}]
)
def test_convolutions_that_pad_or_step_otherwise_are_left_alone(attributes: dict[str, object]) -> None:
    build = Graph(4, 8, 16)
    weights = build.constant(build.normal(4, 4, 3, 3))
    _, count = check(build.model(build.node("Conv", [build.x, weights], (None, 4, 8, 16), **attributes)))
    assert count == 0


def test_only_where_it_gains() -> None:
    """Few channels are not worth moving; a convolution of 64 is."""
    assert not gains(3, 64) and not gains(16, 16) and gains(64, 64) and gains(512, 512)
    build = Graph(64, 8, 16)
    few = build.conv(build.x, 3)
    part, count = check(build.model(build.conv(few, 64), build.conv(build.x, 64)), always=False)
    assert count == 1
    assert sum(node.op_type == "Conv" for node in part.graph) == 2


def test_nothing_to_tile_changes_nothing() -> None:
    build = Graph(3, 8, 16)
    model = build.model(build.merged(build.split(build.maximum(build.x))))
    part, count = tiled(model, always=False)
    assert count == 0
    x = input_of(model)
    np.testing.assert_array_equal(ort(part, {"x": x})["y0"], run(model, x)["y0"])
