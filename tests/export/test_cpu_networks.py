"""Whole networks in the form for CPUs, against PyTorch: with every 3x3 convolution tiled, and with those that gain."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, check_labels, interleaved, network, noise, normalised, ort
from torch import Tensor, nn

import export.cpu.verify
from export.cpu import form
from export.cpu.verify import CpuReport, verify_cpu
from export.ends import LABELS, LOGITS
from export.graphs import Graphs, Rewriting, contract_for, graphs_from_network
from export.nodes import numpy_of
from splitmerge.errors import VerificationError
from training.layers import merge_pool, split_pool
from training.networks.base import SegmentationNet

CPU = Rewriting(target="cpu")
CASES = {
    "smp18": ("smp18", (40, 70), CPU),
    "smp50": ("smp50", (33, 90), CPU),
    "smp-dn121": ("smp-dn121", (40, 90), CPU),
    "smp18 with other windows": ("smp18,windows=2.2.2.2.3", (50, 90), CPU),
    "fcn8s-18": ("fcn8s-18", (70, 100), CPU),
    "deeplabv3-50 split": ("deeplabv3-50", (40, 70), Rewriting("split", target="cpu")),
    "ldn121-64-4": ("ldn121-64-4", (70, 100), CPU),
}
QUICK = ("smp18 with other windows", "fcn8s-18")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "gains", lambda *_: True)


def graphs_of(
    model: nn.Module,
    size: tuple[int, int],
    rewriting: Rewriting = CPU,
    logits: bool = True,
    level: int | None = None,
) -> Graphs:
    contract = contract_for(size, getattr(model, "stride", 1), MEAN, STD)
    return graphs_from_network(model, contract, level, logits, rewriting)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_labels_and_logits_are_pytorchs(case: str, always: None) -> None:
    """Of one frame and of two; split batches in random order."""
    name, size, rewriting = CASES[case]
    model = network(name)
    graphs = graphs_of(model, size, rewriting)
    frames = noise(2, *size)
    with torch.no_grad():
        expected = model(normalised(frames)).numpy()
    if graphs.cut:
        found = [
            interleaved(graphs.cpu.get("stem", graphs.parts["stem"]), graphs.cpu["trunk"], graphs.cut, frame, size)
            for frame in frames
        ]
        labels, logits = (np.stack([one[key] for one in found]) for key in (LABELS, LOGITS))
    else:
        made = ort(graphs.cpu["model"], {"frames": frames})
        labels, logits = made[LABELS], made[LOGITS]
        assert (ort(graphs.cpu["model"], {"frames": frames[:1]})[LABELS] == labels[:1]).all()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    check_labels(labels, logits)


def convolutions(model: ir.Model) -> list[tuple[int, ...]]:
    """Shapes of the weights of what is still a convolution."""
    return [tuple(node.inputs[1].const_value.shape) for node in model.graph if node.op_type == "Conv"]


def test_several_split_batches_at_once_are_the_same_to_the_bit(small: tuple[SegmentationNet, Graphs, Graphs]) -> None:
    """Whoever runs them may take any chunk of them, in any order."""
    _, _, graphs = small
    features = ort(graphs.parts["stem"], {"frames": noise(1, 40, 70)})
    alone = [ort(graphs.cpu["trunk"], {n: v[i, None] for n, v in features.items()}) for i in range(16)]
    order = np.random.default_rng(0).permutation(16)
    for chunk in (order[:2], order[2:5], order[5:9], order[9:]):
        together = ort(graphs.cpu["trunk"], {name: value[chunk] for name, value in features.items()})
        for name in (LABELS, LOGITS):
            np.testing.assert_array_equal(together[name], np.concatenate([alone[index][name] for index in chunk]))


@pytest.mark.slow
def test_the_trunk_of_smp18_is_all_matrix_products() -> None:
    """At width 64 every 3x3 convolution gains; the graph takes and gives what the plain one does."""
    graphs = graphs_of(network("smp18", width=64), (64, 128))
    assert convolutions(graphs.cpu["trunk"]) == []
    assert len(convolutions(graphs.parts["trunk"])) > 16
    for part, tiled in graphs.cpu.items():
        plain = graphs.parts[part].graph
        for one, other in zip(
            [*tiled.graph.inputs, *tiled.graph.outputs], [*plain.inputs, *plain.outputs], strict=True
        ):
            assert (one.name, one.dtype, str(one.shape)) == (other.name, other.dtype, str(other.shape))


class Own(nn.Module):
    """A user's module: ReLU6, maxima, a concatenation, and one split."""

    def __init__(self, window: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        self.window = window
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second, self.third = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.joined = nn.Conv2d(12, 5, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.first(x))
        x = split_pool(x, self.window)
        y = nn.functional.max_pool2d(self.second(x), 3, 1, 1) + x
        z = torch.relu(self.third(y) + y)
        return merge_pool(self.joined(torch.cat([z, y], 1)), self.window)


def test_an_own_module(always: None) -> None:
    torch.manual_seed(0)
    model = Own().eval()
    graphs = graphs_of(model, (24, 36), level=0)
    frames = noise(3, 24, 36)
    with torch.no_grad():
        expected = model(normalised(frames)).numpy()
    made = ort(graphs.cpu["model"], {"frames": frames})
    np.testing.assert_allclose(made[LOGITS], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    check_labels(made[LABELS], made[LOGITS])
    assert convolutions(graphs.cpu["model"]) == []


def test_the_report_says_what_rounding_costs(small: tuple[SegmentationNet, Graphs, Graphs]) -> None:
    report = looked_into(*small)
    assert report.against == "PyTorch in float64"
    assert report.comparison.holds and report.comparison.wrong_labels == 0
    assert report.float64_error is not None and report.plain_float64_error is not None
    assert 1e-9 < report.plain_float64_error < 1e-5 and 1e-9 < report.float64_error < 1e-5
    assert report.parts == ("trunk",)


def test_split_batches_that_are_no_square_are_held_against_the_plain_graphs(always: None) -> None:
    torch.manual_seed(0)
    model: Any = Own((3, 1)).eval()
    report = verify_cpu(model, graphs_of(model, (36, 54), logits=False, level=1))
    assert report.comparison.holds and report.against == "the plain graphs" and "trunk" in report.parts


@pytest.fixture(scope="module")
def small() -> tuple[SegmentationNet, Graphs, Graphs]:
    """A network, its graphs as they ship, and those that return their logits, too."""
    model = network("smp18", width=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(form, "gains", lambda *_: True)
        return model, graphs_of(model, (40, 70), logits=False), graphs_of(model, (40, 70))


def looked_into(model: SegmentationNet, shipped: Graphs, with_logits: Graphs) -> CpuReport:
    """Verify, with the second export ready made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.cpu.verify, "graphs_from_network", lambda *_, **__: with_logits)
        return verify_cpu(model, shipped)


def constant_of(rank: int, choice: int = 0) -> Callable[[ir.Graph], ir.Value]:
    """The large constants of so many dimensions, within Scan's bodies, too."""

    def find(graph: ir.Graph) -> ir.Value:
        values = [value for node in graph.all_nodes() for value in node.inputs if value and value.const_value]
        return [value for value in values if len(value.const_value.shape) == rank][choice]

    return find


def put(value: ir.Value, array: np.ndarray) -> None:
    value.const_value = ir.tensor(array, name=value.name)


def a_weight(graph: ir.Graph) -> None:
    value = constant_of(6)(graph)
    weights = value.const_value.numpy().copy()
    weights[0, 1, 0, 1, 0, 0] += 0.5 * np.abs(weights).max()
    put(value, weights)


def a_matrix(graph: ir.Graph) -> None:
    """Two of the points that inputs are taken to change places."""
    matrices = [node.inputs[0] for node in graph.all_nodes() if node.op_type == "MatMul" and node.inputs[0].const_value]
    value = matrices[0]
    assert value is not None and value.const_value is not None
    rows = value.const_value.numpy().copy()
    rows[[0, 1]] = rows[[1, 0]]
    put(value, rows)


def an_order(graph: ir.Graph) -> None:
    """A split's rows for its columns."""
    node = next(node for node in graph if node.op_type == "Transpose" and _windows_of(node) == 2 * [2])
    order = list(node.attributes["perm"].as_ints())
    rows, columns = order.index(2), order.index(4)
    order[rows], order[columns] = order[columns], order[rows]
    node.attributes["perm"] = ir.AttrInt64s("perm", order)


def _windows_of(node: ir.Node) -> list[int]:
    """Rows and columns of a tiled split's window; nothing for other transpositions."""
    apart = node.inputs[0] and node.inputs[0].producer()
    if not apart or ".tiled" not in (node.name or "") or len(apart.inputs) < 2 or apart.inputs[1] is None:
        return []
    return [int(size) for size in numpy_of(apart.inputs[1])[[2, 4]]] if apart.op_type == "Reshape" else []


def planted(graphs: Graphs, fault: Callable[[ir.Graph], None]) -> Graphs:
    trunk = graphs.cpu["trunk"].clone()
    fault(trunk.graph)
    return dataclasses.replace(graphs, cpu={**graphs.cpu, "trunk": trunk})


@pytest.mark.parametrize("fault", [a_weight, a_matrix, an_order])
def test_faults_are_found(fault: Callable[[ir.Graph], None], small: tuple[SegmentationNet, Graphs, Graphs]) -> None:
    """In the graphs that ship and in those that return their logits alike, as a fault of export would be."""
    model, shipped, with_logits = small
    with pytest.raises(VerificationError, match=r"The graphs for CPUs do not agree with PyTorch in float64: [1-9]"):
        looked_into(model, planted(shipped, fault), planted(with_logits, fault))


def test_a_fault_in_what_ships_alone_is_found(small: tuple[SegmentationNet, Graphs, Graphs]) -> None:
    model, shipped, with_logits = small
    with pytest.raises(VerificationError, match="other labels with their logits than without"):
        looked_into(model, planted(shipped, a_weight), with_logits)


@pytest.mark.parametrize("tie", [None, 1e9])
def test_labels_change_places_only_where_logits_are_close(
    small: tuple[SegmentationNet, Graphs, Graphs], tie: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the second best label everywhere: wrong, but where all logits count as equal."""
    run, seen = export.cpu.verify._run, []

    def second_best(*given: Any) -> Any:
        found = run(*given)
        if found.logits:
            seen.append([np.argsort(part, axis=1)[:, -2].astype(np.uint8) for part in found.logits])
        return dataclasses.replace(found, labels=seen[-1])

    monkeypatch.setattr(export.cpu.verify, "_run", second_best)
    if tie is None:
        with pytest.raises(VerificationError, match="pixels have another label"):
            looked_into(*small)
        return
    monkeypatch.setattr(export.cpu.verify, "TIE", tie)
    row = looked_into(*small).comparison
    assert row.near_ties == row.pixels > 0 and row.label_agreement < 0.1
