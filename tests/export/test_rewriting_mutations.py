"""Mistakes planted in the rewriting: each must make a comparison fail, or the comparisons prove nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import pytest
from random_graphs import Builder
from rewriting_checks import check_there_and_back

import export.borders
import export.dilated_form
import export.lower
import export.regions
import export.split_form
from export.nodes import numpy_of

Patch = pytest.MonkeyPatch


def samples() -> list[ir.Model]:
    """A residual block with growing rates, one with joins and images, one with paddings that no rate divides."""
    block = Builder(2, 9, 11, seed=1)
    first = block.conv(block.x, 2, (3, 3), (2, 2), pads=[2] * 4)
    second = block.conv(block.node("Relu", [first], block.bounds[first]), 2, (3, 3), (4, 4), pads=[4] * 4)
    added = block.node("Add", [second, block.x], block.bounds[second] + 2)
    third = block.conv(block.clip(added), 2, (3, 2), (2, 4), pads=[2, 0, 2, 4])
    joined = Builder(2, 8, 10, seed=2)
    left = joined.conv(joined.x, 2, (3, 3), (2, 1), groups=2, pads=[2, 1, 2, 1])
    image = joined.node("Add", [left, joined.constant(joined.integers(1, 1, 8, 10))], joined.bounds[left] + 1)
    both = joined.node("Concat", [left, joined.clip(image)], joined.bounds[left], axis=1)
    last = joined.conv(both, 1, (3, 3), (2, 3), pads=[2, 3, 2, 3])
    uneven = Builder(1, 10, 9, seed=3)
    start = uneven.conv(uneven.x, 2, (3, 2), (3, 2), pads=[4, 1, 3, 0])
    valid = uneven.conv(start, 1, (2, 2), (3, 3), pads=[0, 0, 0, 0])
    maximum = uneven.node("MaxPool", [valid], uneven.bounds[valid], kernel_shape=[3, 3], pads=[1] * 4)
    end = uneven.conv(maximum, 1, (3, 3), (2, 2), pads=[2, 2, 2, 2])
    return [block.model([third]), joined.model([last]), uneven.model([end])]


def replaced(module: object, name: str, mutant: Callable[..., Any]) -> Callable[[Patch], None]:
    """`mutant` gets the original in front of its arguments."""

    def plant(patch: Patch) -> None:
        original = getattr(module, name)
        patch.setattr(module, name, lambda *args, **kwargs: mutant(original, *args, **kwargs))

    return plant


def swap_sides(original: Any, graph: ir.Graph, value: ir.Value, before: Any, after: Any) -> Any:
    return original(graph, value, after, before)


def crop_elsewhere(original: Any, graph: ir.Graph, value: ir.Value, size: Any) -> Any:
    height, width = export.borders.size_of(value)
    return original(graph, value, size, (height - size[0], width - size[1]))


def lose_rate(original: Any, conv: ir.Node, geometry: Any) -> None:
    original(conv, replace(geometry, rate=(1, 1)))


def shift(original: Any, conv: ir.Node, geometry: Any) -> None:
    (top, left), (bottom, right) = geometry.before, geometry.after
    original(conv, replace(geometry, before=(top + 1, left), after=(max(bottom - 1, 0), right)))


def exchange(original: Any, geometry: Any, window: Any) -> bool:
    return bool(original(geometry, (1, 1)))


def all_rows(original: Any, graph: ir.Graph, value: ir.Value, size: Any) -> Any:
    return original(graph, value, (size[0] + 1, size[1]))


def pads_of_batches(original: Any, graph: ir.Graph, node: ir.Node, step: Any) -> bool:
    return bool(numpy_of(node.inputs[1]).any())


SPLIT, DILATED = export.split_form, export.dilated_form
MUTATIONS = {
    "nothing is masked": replaced(SPLIT._Pass, "_mask", lambda original, own, value: value),
    "everything counts as zero": replaced(SPLIT._Pass, "_zero_beyond", lambda original, *args: True),
    "the mask has a row too many": replaced(SPLIT, "mask_node", all_rows),
    "padded above and left": replaced(SPLIT, "pad_node", swap_sides),
    "cropped at the wrong end": replaced(SPLIT, "crop_node", crop_elsewhere),
    "one split for every rate": replaced(SPLIT, "set_geometry", lose_rate),
    "the padding is shifted": replaced(SPLIT, "set_geometry", shift),
    "no rest of the padding": replaced(SPLIT, "_pad_explicitly", lambda original, *args: None),
    "any convolution fits": replaced(export.regions, "fits", exchange),
    "images pass for one pixel": replaced(export.regions, "_is_one_pixel", lambda original, *args: True),
    "every operator may be split": replaced(export.regions, "treats_pixels_alike", lambda original, node: True),
    "rates are not multiplied": replaced(DILATED, "set_geometry", lambda original, *args: None),
    "pads are not multiplied": replaced(DILATED, "_dilate_pad", pads_of_batches),
    "rows and columns change places": replaced(
        export.lower,
        "grid_of",
        lambda original, node: original(node)[::-1] if node.op_type == "Mask" else original(node),
    ),
}


def test_the_samples_hold() -> None:
    for model in samples():
        check_there_and_back(model)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mistakes_are_noticed(mutation: str, monkeypatch: Patch) -> None:
    models = samples()
    MUTATIONS[mutation](monkeypatch)
    if mutation == "pads are not multiplied":
        monkeypatch.setattr(DILATED, "_RULES", {**DILATED._RULES, "Pad": DILATED._dilate_pad})
    noticed = []
    for model in models:
        try:
            check_there_and_back(model)
        except Exception as error:  # a graph that ONNX Runtime refuses is noticed as well
            noticed.append(error)
    assert noticed
