"""What a rewritten graph is held against, shared by the tests of the rewriting and by those of its mutations."""

import numpy as np
import onnx_ir as ir
from export_samples import ort
from numpy.typing import NDArray

from export.commute import fuse_poolings
from export.dilated_form import dilate_split
from export.geometry import geometry_of
from export.lower import lower_poolings
from export.nodes import is_merge, is_split, window_of
from export.split_form import split_dilated

Array = NDArray[np.generic]


def check_there_and_back(model: ir.Model) -> None:
    """Split and dilated again, the graph gives the same numbers, bit for bit, without dilation and without poolings."""
    inputs = inputs_of(model)
    expected = run(model, inputs)
    rewritten = model.clone()
    split_dilated(rewritten)
    assert set(rates(rewritten)) <= {(1, 1)}
    assert_no_split_undoes_a_merge(rewritten)
    assert_same(run(rewritten, inputs), expected)
    dilate_split(rewritten)
    assert not any(is_split(node) or is_merge(node) for node in rewritten.graph)
    assert sorted(rates(rewritten)) == sorted(rates(model))
    assert_same(run(rewritten, inputs), expected)


def inputs_of(model: ir.Model) -> dict[str, Array]:
    (x,) = model.graph.inputs
    assert x.shape is not None
    shape = [size for size in x.shape if isinstance(size, int)]
    return {"x": np.random.default_rng(1).integers(-2, 3, (2, *shape)).astype(np.float32)}


def run(model: ir.Model, inputs: dict[str, Array]) -> dict[str, Array]:
    """Outputs in ONNX Runtime of a graph whose poolings are nodes still; the graph stays as it is."""
    finished = model.clone()
    fuse_poolings(finished)
    lower_poolings(finished)
    assert all(len(value.shape or ()) <= 8 for node in finished.graph for value in node.outputs)
    return ort(finished, inputs)


def rates(model: ir.Model) -> list[tuple[int, ...]]:
    """Of every convolution of stride 1; 1 where its kernel has one pixel."""
    found = []
    for node in model.graph:
        if node.op_type == "Conv" and (geometry := geometry_of(node)) and geometry.stride == (1, 1):
            found.append(tuple(r if k > 1 else 1 for r, k in zip(geometry.rate, geometry.kernel, strict=True)))
    return found


def poolings(model: ir.Model) -> list[tuple[str, tuple[int, int]]]:
    """Splits and merges in the graph's order, fused, with their windows."""
    fused = model.clone()
    fuse_poolings(fused)
    return [(node.op_type, window_of(node)) for node in fused.graph if is_split(node) or is_merge(node)]


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def assert_no_split_undoes_a_merge(model: ir.Model) -> None:
    for node in model.graph:
        value = node.inputs[0] if is_split(node) else None
        before = value.producer() if value is not None else None
        assert before is None or not is_merge(before) or window_of(before) != window_of(node)
