"""Split and merge pooling in graphs of any windows, against slicing."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import ort
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from export.commute import fuse_poolings, hoist
from export.cut import cut_at
from export.layouts import check_merged, layouts_of
from export.lower import lower_poolings
from export.nodes import is_split
from export.trace import trace
from splitmerge.errors import InputError
from training.layers import merge_pool, split_pool

Window = tuple[int, int]
windows = st.tuples(st.integers(1, 3), st.integers(1, 3))


def chain(first: Window, second: Window, height: int, width: int) -> ir.Model:
    """split, 3x3 maximum, split, maximum, merge, maximum, merge, with pointwise operators beside every pooling."""
    (a, b), (c, d) = first, second
    maximum = "MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    channels, h, w = 2, a * c * height, b * d * width
    return traced(
        f"""
        g (float[N,{channels},{h},{w}] x) => (float[N,{channels},{h},{w}] y)
        <float[N1,{channels},{h // a},{w // b}] s1, float[N1,{channels},{h // a},{w // b}] n1,
         float[N1,{channels},{h // a},{w // b}] m1, float[N2,{channels},{height},{width}] s2,
         float[N2,{channels},{height},{width}] n2, float[N2,{channels},{height},{width}] m2,
         float[N1,{channels},{h // a},{w // b}] s3, float[N1,{channels},{h // a},{w // b}] m3,
         float[N,{channels},{h},{w}] s4>
        {{
            s1 = splitmerge.SplitPool <window = [{a}, {b}]> (x)
            n1 = Neg (s1)
            m1 = {maximum} (n1)
            s2 = splitmerge.SplitPool <window = [{c}, {d}]> (m1)
            n2 = Neg (s2)
            m2 = {maximum} (n2)
            s3 = splitmerge.MergePool <window = [{c}, {d}]> (m2)
            m3 = {maximum} (s3)
            s4 = splitmerge.MergePool <window = [{a}, {b}]> (m3)
            y = Neg (s4)
        }}
        """
    )


def traced(text: str) -> ir.Model:
    """A graph from text, its nodes named after their outputs, as tracing leaves it."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 19, "splitmerge": 1]> {text}')
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def dilated_maximum(x: NDArray[np.float32], rate: Window) -> NDArray[np.float32]:
    """3x3 maximum over neighbours `rate` pixels apart."""
    rows, columns = rate
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)), constant_values=-np.inf)
    shifts = [(i * rows, j * columns) for i in range(3) for j in range(3)]
    return np.max([padded[:, :, i : i + height, j : j + width] for i, j in shifts], axis=0)


@settings(max_examples=40, deadline=None)
@given(windows, windows, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_nested_windows(first: Window, second: Window, height: int, width: int, count: int) -> None:
    model = chain(first, second, height, width)
    hoist(model)
    fuse_poolings(model)
    lower_poolings(model)
    assert not {node.op_type for node in model.graph} - {"Reshape", "Transpose", "MaxPool", "Neg"}
    assert all(value.shape is None or len(value.shape) <= 8 for node in model.graph for value in node.outputs)
    (shape,) = [value.shape for value in model.graph.inputs]
    assert shape is not None
    x = np.random.default_rng(0).normal(size=(count, *list(shape)[1:])).astype(np.float32)
    both = first[0] * second[0], first[1] * second[1]
    expected = -dilated_maximum(dilated_maximum(-dilated_maximum(-x, first), both), first)
    (found,) = ort(model, {"x": x}).values()
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=20, deadline=None)
@given(windows, windows, windows)
def test_neighbours_become_one_pooling(first: Window, second: Window, third: Window) -> None:
    """Three splits and three merges with pointwise operators between them are one of each, which undo each other."""
    rows, columns = (first[i] * second[i] * third[i] for i in (0, 1))
    steps, value = [], "x"
    for kind, order in (("Split", (first, second, third)), ("Merge", (third, second, first))):
        for index, window in enumerate(order):
            steps.append(f"p{kind}{index} = splitmerge.{kind}Pool <window = [{window[0]}, {window[1]}]> ({value})")
            steps.append(f"n{kind}{index} = Neg (p{kind}{index})")
            value = f"n{kind}{index}"
    shape = f"float[N,1,{rows},{2 * columns}]"
    model = traced(f"g ({shape} x) => ({shape} {value}) {{ {' '.join(steps)} }}")
    for node in model.graph:  # pooling needs no shapes to be moved, only to be lowered
        node.outputs[0].dtype = ir.DataType.FLOAT
        node.outputs[0].shape = ir.Shape([None, 1, None, None])
    hoist(model)
    fuse_poolings(model)
    kinds = [node.op_type for node in model.graph if node.domain]
    assert kinds == (["SplitPool", "MergePool"] if (rows, columns) != (1, 1) else [])
    assert all(tuple(node.attributes["window"].as_ints()) == (rows, columns) for node in model.graph if node.domain)


class Rectangles(nn.Module):
    """Hand-made: a network that splits by 3x1, 1x2 and 2x3, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 5, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = split_pool(torch.sigmoid(split_pool(self.first(x), (3, 1))), (1, 2))
        x = split_pool(self.second(x), (2, 3)) + split_pool(self.shortcut(x), (2, 3))
        x = merge_pool(torch.relu(x), (2, 3))
        return merge_pool(merge_pool(x, (1, 2)), (3, 1))


@pytest.fixture(scope="module")
def rectangles() -> tuple[Rectangles, ir.Model]:
    torch.manual_seed(0)
    module = Rectangles().eval()
    model = trace(module, 12, 24)
    hoist(model)
    return module, model


@pytest.mark.parametrize(("level", "window"), [(1, (3, 1)), (2, (3, 2)), (3, (6, 6))])
def test_rectangular_windows_traced_and_cut(
    rectangles: tuple[Rectangles, ir.Model], level: int, window: Window
) -> None:
    module, model = rectangles
    x = torch.randn(2, 3, 12, 24)
    with torch.no_grad():
        expected = module(x).numpy()
    parts = cut_at(model, level)
    assert (parts.cut.rows, parts.cut.columns) == window
    for part in (parts.stem, parts.trunk):
        fuse_poolings(part)
        lower_poolings(part)
    features = ort(parts.stem, {"x": x.numpy()})
    (batches,) = ort(parts.trunk, features).values()
    rows, columns = window
    for n, row, column in np.ndindex(2, rows, columns):
        found = batches[(n * rows + row) * columns + column]
        np.testing.assert_allclose(found, expected[n, :, row::rows, column::columns], rtol=0, atol=1e-6)


def test_operators_before_the_first_split_are_hoisted(rectangles: tuple[Rectangles, ir.Model]) -> None:
    _, model = rectangles
    whole = model.clone()
    fuse_poolings(whole)
    windows = [tuple(node.attributes["window"].as_ints()) for node in whole.graph if node.domain]
    assert windows == [(3, 2), (2, 3), (2, 3), (6, 6)]


SHAPE = "float[N,2,4,4]"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = splitmerge.MergePool <window = [2, 2]> (x)", "y merges 2x2 where nothing was split"),
        (
            "a = splitmerge.SplitPool <window = [4, 4]> (x) y = splitmerge.MergePool <window = [2, 2]> (a)",
            "y merges 2x2 where 4x4 was split last",
        ),
        ("y = splitmerge.SplitPool <window = [2, 1]> (x)", "output y is still split 2x1"),
        (
            "a = splitmerge.SplitPool <window = [2, 2]> (x) y = CumSum (a, zero)",
            "y .CumSum. stands between a split and its merge",
        ),
        ("a = splitmerge.SplitPool <window = [2, 2]> (x) y = Softmax <axis = 0> (a)", "y .Softmax. stands between"),
        ("a = splitmerge.SplitPool <window = [2, 2]> (x) y = Concat <axis = 0> (a, a)", "y .Concat. stands between"),
        ("a = splitmerge.SplitPool <window = [2, 2]> (x) y = Add (a, weights)", "y .Add. stands between"),
        ("a = splitmerge.SplitPool <window = [2, 2]> (x) y = Add (a, x)", "combines values that are split differently"),
    ],
)
def test_networks_whose_batches_are_not_independent_are_refused(body: str, message: str) -> None:
    constants = "<int64 zero = {0}, float[4,1,1,1] weights = {1, 2, 3, 4}>"
    model = traced(f"g ({SHAPE} x) => (float[N,2,4,4] y) {constants} {{ {body} }}")
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([None, 2, 4, 4])
    with pytest.raises(InputError, match=message):
        layouts_of(model.graph)
        check_merged(model.graph)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("c = splitmerge.MergePool <window = [2, 2]> (b) y = Add (c, x)", "leads around|goes on behind"),
        ("c = splitmerge.MergePool <window = [2, 2]> (b) y = CumSum (c, zero)", "goes on behind c"),
    ],
)
def test_networks_that_cannot_be_cut_are_refused(body: str, message: str) -> None:
    model = traced(
        f"g ({SHAPE} x) => ({SHAPE} y) <int64 zero = {{0}}> "
        f"{{ a = splitmerge.SplitPool <window = [2, 2]> (x) b = Relu (a) {body} }}"
    )
    for node in model.graph:
        node.outputs[0].shape = ir.Shape([None, 2, 4, 4])
    with pytest.raises(InputError, match=message):
        cut_at(model, 1)


def test_a_split_that_others_read_is_left_where_it_is() -> None:
    """Relu must not be applied to what the second reader sees."""
    model = traced(
        f"g ({SHAPE} x) => ({SHAPE} y) {{ a = splitmerge.SplitPool <window = [2, 2]> (x) b = Relu (a) c = Add (a, b) "
        "y = splitmerge.MergePool <window = [2, 2]> (c) }"
    )
    for node in model.graph:
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape([None, 2, 2, 2])
    model.graph.outputs[0].shape = ir.Shape([None, 2, 4, 4])
    hoist(model)
    assert is_split(model.graph[0])
    fuse_poolings(model)
    lower_poolings(model)
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    (found,) = ort(model, {"x": x}).values()
    np.testing.assert_array_equal(found, x + np.maximum(x, 0))
