"""Transposes in steps: the same numbers, whatever the axes, and fewer nanoseconds."""

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest
from export_samples import ort
from hypothesis import given, settings
from hypothesis import strategies as st

from export.cpu import transposes
from export.cpu.emitter import Emitter
from export.cpu.transposes import in_steps, nanoseconds, part_transposes


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_steps_lead_to_the_same_order(data: st.DataObject) -> None:
    """Numbered entries through ONNX Runtime, with a free axis anywhere, and all that is no slower taken in steps."""
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 8]), min_size=1, max_size=7))
    perm = data.draw(st.permutations(range(len(shape))))
    free = data.draw(st.integers(0, len(shape) - 1))
    x = np.arange(np.prod(shape), dtype=np.float32)
    given_shape = [-1 if axis == free else size for axis, size in enumerate(shape)]
    emit, value = Emitter("turned"), ir.val("x", ir.DataType.FLOAT, ["n"])
    out = emit("Transpose", emit.reshape(value, *given_shape), perm=perm)
    emit("Identity", out)
    result = emit.nodes[-1].outputs[0]
    result.dtype = ir.DataType.FLOAT
    graph = ir.Graph([value], [result], nodes=emit.nodes, initializers=emit.constants, opset_imports={"": 19}, name="g")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transposes, "_GAIN", data.draw(st.sampled_from([0.8, 100.0])))
        part_transposes(graph)
    (found,) = ort(ir.Model(graph, ir_version=10), {"x": x}).values()
    np.testing.assert_array_equal(found, x.reshape(shape).transpose(perm))


CHANGED = {
    "split of tiles": ([1, 8, 2, 4, 2, 512, 2, 2, 8, 2, -1], "ghkilcsmtjn", "gmhjicstkln"),
    "leave": ([64, 8, 256, 16, 2, 2, -1], "hrctkln", "nklchtr"),
    "enter": ([-1, 256, 4, 16, 16, 8], "ncshtr", "hrcstn"),
    "split": ([-1, 32, 16, 2, 32, 2], "nchkwl", "nklchw"),
}
KEPT = {
    "split batches side by side": ([1, 8, 2, 4, 2, 512, 1, 1, 1, 2, 16], "ghkilcsmtjb", "gmhjicstklb"),
    "batches first": ([-1, 4, 64, 8, 8], "nkchw", "knchw"),
    "channels last": ([-1, 64, 64], "ncp", "npc"),
    "one axis": ([-1], "n", "n"),
}


@pytest.mark.parametrize("name", [*CHANGED, *KEPT])
def test_steps_are_taken_where_numbers_would_move_one_by_one(name: str) -> None:
    shape, before, after = (CHANGED | KEPT)[name]
    perm = [before.index(axis) for axis in after]
    steps = in_steps(shape, perm)
    assert (len(steps) > 1) == (name in CHANGED) and steps[-1] == perm
    start = list(range(len(shape)))
    if name in CHANGED:
        assert nanoseconds(shape, start, perm) == pytest.approx(4.2)
        assert sum(nanoseconds(shape, *pair) for pair in pairwise([start, *steps])) < 2


def test_what_no_reshape_tells_is_left_alone() -> None:
    emit, value = Emitter("turned"), ir.val("x", ir.DataType.FLOAT, [8, 16, 32])
    out = emit("Transpose", value, perm=[2, 1, 0])
    graph = ir.Graph([value], [out], nodes=emit.nodes, opset_imports={"": 19}, name="g")
    part_transposes(graph)
    assert [node.op_type for node in graph] == ["Transpose"]
