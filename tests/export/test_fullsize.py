"""What depends on the frames' size is verified at that size, on the graphs that ship."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from export_samples import MEAN, STD, altered, network, perturb

from export.fullsize import compare_full_size, largest_tensor
from export.graphs import Graphs, contract_for, graphs_from_network
from export.verify import verify
from splitmerge.errors import VerificationError
from training.networks.base import SegmentationNet
from training.networks.smp import SMP

SIZE = (100, 150)  # padded to 128x160, 2.5 times the twin's


def exported(model: SegmentationNet, cut: int = 2) -> Graphs:
    return graphs_from_network(model, contract_for(SIZE, model.stride, MEAN, STD), cut)


@pytest.fixture(scope="module")
def graphs(smp18: SMP) -> Graphs:
    return exported(smp18)


@pytest.fixture
def no_whole_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.fullsize.MAX_NUMBERS", 1000)


def sizes_changed(pooling: str, change: Callable[[list[int]], list[int]]) -> Callable[[ir.Graph], None]:
    """Put other sizes into the first reshape of a pooling; its result has the shape that it should have."""

    def fault(graph: ir.Graph) -> None:
        node = graph.node(f"{pooling}.windows")
        value = node.inputs[1]
        assert value is not None and value.const_value is not None
        shape = change(value.const_value.numpy().tolist())
        value.const_value = ir.tensor(np.array(shape, np.int64), name=value.name)
        for name in ("windows", "turned"):  # ONNX Runtime would hold their shapes against the new one
            graph.node(f"{pooling}.{name}").outputs[0].shape = None

    return fault


def swapped(pooling: str, one: int, other: int) -> Callable[[ir.Graph], None]:
    """Exchange two of the sizes, such as height and width, which leaves as many numbers."""

    def change(shape: list[int]) -> list[int]:
        shape[one], shape[other] = shape[other], shape[one]
        return shape

    return sizes_changed(pooling, change)


def test_largest_tensor(graphs: Graphs) -> None:
    """The outputs of layer4, of 8 x 4 channels for every pixel of the padded frame."""
    assert largest_tensor(graphs) == 32 * 128 * 160


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_rows_and_columns_of_the_batches(smp18: SMP, cut: int) -> None:
    full = compare_full_size(smp18, exported(smp18, cut))
    second = (2**cut - 1) * 2**cut + 1
    assert full.comparisons[0].compared == f"stem + trunk, full size, split batches 0 and {second}"
    assert len(full.comparisons) == 2
    for row in full.comparisons:
        assert row.holds and row.size == SIZE and 0 < row.relative_error < 1e-5
    parts = [(0, 0), (2**cut - 1, 1)]
    inside = sum(len(range(k, SIZE[0], 2**cut)) * len(range(c, SIZE[1], 2**cut)) for k, c in parts)
    assert [row.pixels for row in full.comparisons] == [inside, inside]


@pytest.mark.usefixtures("no_whole_graph")
def test_a_large_frame_is_run_on_one_split_batch(smp18: SMP, graphs: Graphs) -> None:
    full = compare_full_size(smp18, graphs)
    assert full.summary == "stem + trunk on split batch 13"
    assert [row.compared for row in full.comparisons] == ["stem + trunk, full size, split batch 13"]
    assert full.comparisons[0].pixels == 25 * 38  # [3::4, 1::4] of 100x150


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("stem", swapped("features", 2, 4)),
        ("trunk", swapped("layer3.0.split", 4, 6)),
        ("trunk", swapped("argmax.merge_2", -1, -2)),
        ("model", swapped("layer4.0.split", 4, 6)),
    ],
)
def test_a_wrong_size_in_the_graph_that_ships_is_noticed(
    smp18: SMP, graphs: Graphs, part: str, fault: Callable[[ir.Graph], None]
) -> None:
    """The twin is right, and alike but for its sizes."""
    name = "model" if part == "model" else "stem . trunk"
    with pytest.raises(VerificationError, match=f"The {name}, full size, .*does not agree with PyTorch .*100x150"):
        verify(smp18, altered(graphs, part, fault))


@pytest.mark.usefixtures("no_whole_graph")
def test_a_wrong_weight_is_noticed_in_one_split_batch(smp18: SMP, graphs: Graphs) -> None:
    for part, layer in (("stem", "conv1"), ("trunk", "layer4.1.conv2")):
        (row,) = compare_full_size(smp18, altered(graphs, part, perturb(layer))).comparisons
        assert not row.holds


def test_a_graph_that_does_not_run_is_a_failed_verification(smp18: SMP, graphs: Graphs) -> None:
    fault = sizes_changed("features", lambda shape: [*shape[:-1], 7])
    with pytest.raises(VerificationError, match="ONNX Runtime cannot run the stem graph"):
        compare_full_size(smp18, altered(graphs, "stem", fault))


def test_baselines_are_run_whole() -> None:
    model = network("fcn8s-18")
    full = compare_full_size(model, exported(model))
    (row,) = full.comparisons
    assert row.compared == "model, full size, every pixel"
    assert row.holds and row.pixels == np.prod(SIZE)


def test_no_cut(smp18: SMP) -> None:
    full = compare_full_size(smp18, exported(smp18, cut=0))
    assert [row.compared for row in full.comparisons] == ["model, full size, pixels [0::4, 0::4] and [3::4, 1::4]"]
    assert full.comparisons[0].holds


@pytest.mark.usefixtures("no_whole_graph")
@pytest.mark.parametrize("name", ["fcn32s-18", "smp18"])
def test_what_is_too_large_is_said(name: str) -> None:
    model = network(name)
    full = compare_full_size(model, exported(model, cut=0))
    assert full.comparisons == () and full.summary.startswith("not run: the largest tensor has")
