"""Shortcuts that are split first and add nothing themselves: the same numbers, and only where that holds."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from cpu_graphs import Graph, input_of, run

from export.cpu import form
from export.cpu.shortcuts import cheapen_shortcuts
from export.layouts import layouts_of
from export.nodes import is_split, numpy_of, sizes


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 3x3 convolution is worth tiling."""
    monkeypatch.setattr(form, "gains", lambda *_: True)


def block(build: Graph, out: int, size: int = 1, bias: bool = True, large: int = 3, **point: int) -> ir.Value:
    """A residual block: a convolution, split, and one of `size` that makes the shortcut, split as well."""
    branch = build.conv(build.split(build.relu(build.conv(build.x, out))), out, large, bias)
    return build.relu(build.add(branch, build.split(build.conv(build.x, out, size, **point))))


def cheapened(model: ir.Model) -> ir.Model:
    """Rewritten, with the same results but for rounding and layouts that are still consistent."""
    part = model.clone()
    before = {value.name: layout for value, layout in layouts_of(part.graph).items()}
    cheapen_shortcuts(part)
    after = {value.name: layout for value, layout in layouts_of(part.graph).items()}
    assert all(after[name] == before[name] for name in ("y0", *(f"y{i}" for i in range(1, len(model.graph.outputs)))))
    x = input_of(model)
    expected, found = run(model, x), run(part, x)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * np.abs(value).max())
    return part


def splits_of_the_input(model: ir.Model) -> int:
    return sum(is_split(node) and node.inputs[0] is model.graph.inputs[0] for node in model.graph)


def points_with_bias(model: ir.Model) -> list[bool]:
    points = (node for node in model.graph if node.op_type == "Conv" and numpy_of(node.inputs[1]).shape[2:] == (1, 1))
    return [len(node.inputs) > 2 for node in points]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("out", [4, 8])
def test_a_shortcut_is_split_first_and_its_bias_moves(out: int, bias: bool) -> None:
    build = Graph(4, 8, 12)
    part = cheapened(build.model(build.merged(block(build, out, bias=bias))))
    assert splits_of_the_input(part) == 1 and points_with_bias(part) == [False]
    (split,) = (node for node in part.graph if is_split(node) and node.inputs[0] is part.graph.inputs[0])
    assert sizes(split.outputs[0]) == (None, 4, 4, 6)


def test_two_splits_in_a_row_both_come_first() -> None:
    build = Graph(3, 8, 16)
    branch = build.conv(build.split(build.split(build.x), (1, 2)), 6)
    shortcut = build.split(build.split(build.conv(build.x, 6, 1)), (1, 2))
    part = cheapened(build.model(build.merged(build.add(branch, shortcut))))
    assert splits_of_the_input(part) == 2 and points_with_bias(part) == [False]


def narrowing() -> ir.Model:
    """Fewer channels behind than in front: the split stays where less is moved, and the bias moves all the same."""
    build = Graph(8, 8, 12)
    return build.model(build.merged(block(build, 4)))


def read_twice() -> ir.Model:
    build = Graph(4, 8, 12)
    shortcut = build.conv(build.x, 8, 1)
    branch = build.conv(build.split(build.conv(build.x, 8)), 8)
    return build.model(build.merged(build.add(branch, build.split(shortcut))), shortcut)


def strided() -> ir.Model:
    build = Graph(4, 8, 16)
    branch = build.conv(build.split(build.conv(build.x, 8, stride=2)), 8)
    return build.model(build.merged(build.add(branch, build.split(build.conv(build.x, 8, 1, stride=2)))))


def padded() -> ir.Model:
    """A 1x1 convolution that makes the map larger by a border, which a split would part otherwise."""
    build = Graph(4, 6, 10)
    weights = build.constant(build.normal(8, 4, 1, 1))
    wide = build.node("Conv", [build.x, weights], (None, 8, 8, 12), pads=[1] * 4)
    return build.model(build.merged(build.add(build.conv(build.split(wide), 8), build.split(wide))))


def returned() -> ir.Model:
    """The split is what the graph gives, under its name."""
    build = Graph(4, 8, 12)
    return build.model(build.split(build.conv(build.x, 8, 1)))


def summed_with_a_point() -> ir.Model:
    """As in a bottleneck: nothing there is tiled, and the shortcut would be left alone behind the split."""
    build = Graph(4, 8, 12)
    return build.model(build.merged(block(build, 8, large=1)))


@pytest.mark.parametrize("case", [narrowing, read_twice, strided, padded, returned, summed_with_a_point])
def test_splits_that_stay(case: Callable[[], ir.Model]) -> None:
    model = case()
    part = cheapened(model)
    assert splits_of_the_input(part) == 0
    assert [value.name for value in part.graph.outputs] == [value.name for value in model.graph.outputs]


def two_points() -> ir.Model:
    build = Graph(4, 8, 12)
    return build.model(build.merged(block(build, 4, large=1)))


def summed_with_the_input() -> ir.Model:
    build = Graph(4, 8, 12)
    return build.model(build.add(build.conv(build.x, 4, 1), build.x))


def one_channel(large: int, point: int) -> ir.Model:
    """A map of one channel is added to all others'."""
    build = Graph(4, 8, 12)
    one, other = build.conv(build.x, large), build.conv(build.x, point, 1)
    return build.model(build.node("Add", [one, other], (None, max(large, point), 8, 12)))


def points_of_all() -> ir.Model:
    return one_channel(1, 5)


def a_point_for_all() -> ir.Model:
    return one_channel(5, 1)


@pytest.mark.parametrize("case", [two_points, summed_with_the_input, read_twice, points_of_all, a_point_for_all])
def test_biases_that_stay(case: Callable[[], ir.Model]) -> None:
    assert all(points_with_bias(cheapened(case())))
