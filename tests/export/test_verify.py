"""Verification passes what is right, and names the layer where something is wrong."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, altered, network, perturb

from export.agreement import LOGITS_TOLERANCE, TorchReference
from export.frames import sample_frames
from export.graphs import Graphs, contract_for, graphs_from_network
from export.verify import _smaller, verify, verify_graphs
from splitmerge.errors import CheckpointError, VerificationError
from training.networks.smp import SMP


def transpose_swapped(pooling: str, one: int, other: int) -> Callable[[ir.Graph], None]:
    """Mix up two axes of equal size in a pooling's transpose: split batches change places."""

    def fault(graph: ir.Graph) -> None:
        node = graph.node(f"{pooling}.turned")
        perm = list(node.attributes["perm"].as_ints())
        perm[one], perm[other] = perm[other], perm[one]
        node.attributes.add(ir.AttrInt64s("perm", perm))

    return fault


def test_report(smp18: SMP, smp18_graphs: Graphs) -> None:
    report = verify(smp18, smp18_graphs)
    assert report.full_size == "all graphs on every pixel"
    assert [row.compared for row in report.comparisons] == ["dilated network", "model", "stem + trunk"]
    for row in report.comparisons:
        assert row.holds and row.wrong_labels == 0 and row.pixels == 2 * 64 * 96 and row.size == (64, 96)
        assert row.label_agreement > 0.999
        assert 0 < row.relative_error < 1e-5


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        ((512, 1024), 32, (64, 128)),
        ((360, 640), 32, (40, 128)),
        ((1024, 2048), 128, (128, 128)),
        ((300, 400), 64, (108, 80)),  # padded to 320x448 by 20 and 48
        ((130, 2048), 128, (130, 128)),
    ],
)
def test_twins_are_padded_alike_and_no_smaller_than_a_window(
    size: tuple[int, int], stride: int, expected: tuple[int, int]
) -> None:
    contract = contract_for(size, stride, MEAN, STD)
    twin = _smaller(contract, stride)
    assert twin.size == expected
    assert contract.padded_height - contract.height == twin.padded_height - twin.height
    assert contract.padded_width - contract.width == twin.padded_width - twin.width


@pytest.mark.parametrize("layer", ["conv1", "layer2.0.conv1", "layer3.0.downsample.0", "layer4.1.conv2", "classifier"])
def test_a_wrong_weight_in_the_whole_graph_is_traced_to_its_layer(smp18: SMP, smp18_graphs: Graphs, layer: str) -> None:
    with pytest.raises(VerificationError, match=f"The model does not agree .*first layer that differs is {layer}[.] "):
        verify_graphs(smp18, altered(smp18_graphs, "model", perturb(layer)))


@pytest.mark.parametrize(
    ("part", "layer"), [("stem", "conv1"), ("trunk", "layer1.0.conv1"), ("trunk", "layer4.0.conv2")]
)
def test_a_wrong_weight_in_a_part_is_traced_to_its_layer(
    smp18: SMP, smp18_graphs: Graphs, part: str, layer: str
) -> None:
    with pytest.raises(VerificationError, match=f"stem . trunk does not .*first layer that differs is {layer}[.] "):
        verify_graphs(smp18, altered(smp18_graphs, part, perturb(layer)))


@pytest.mark.parametrize(
    ("part", "pooling", "axes", "where"),
    [
        ("stem", "features", (1, 2), "layer1.0.conv1"),
        ("model", "layer3.0.split", (1, 3), "layer3.0.conv2"),
        ("trunk", "argmax.merge_2", (2, 4), "behind the last convolution"),
    ],
)
def test_exchanged_split_batches_are_noticed(
    smp18: SMP, smp18_graphs: Graphs, part: str, pooling: str, axes: tuple[int, int], where: str
) -> None:
    with pytest.raises(VerificationError, match=f"first layer that differs is {where}[.] "):
        verify_graphs(smp18, altered(smp18_graphs, part, transpose_swapped(pooling, *axes)))


def test_large_frames_are_verified_by_a_twin(smp18: SMP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.verify.MAX_PIXELS", 1000)
    graphs = graphs_from_network(smp18, contract_for((100, 150), 32, MEAN, STD), 1)
    report = verify(smp18, graphs)
    assert report.comparisons[1].size == (64 - 28, 128 - 10)  # 100 and 150 are padded by as much
    assert [row.compared for row in report.comparisons][3:] == [
        "stem + trunk, full size, split batches 0 and 3",
        "model, full size, pixels [0::2, 0::2] and [1::2, 1::2]",
    ]
    with pytest.raises(VerificationError, match="changes with the size"):
        verify(smp18, altered(graphs, "trunk", perturb("layer4.1.conv1")))


def test_weights_that_are_not_finite_are_refused() -> None:
    model = network("fcn32s-18")
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in conv1.weight"):
        graphs_from_network(model, contract_for((32, 32), 32, MEAN, STD))


def test_logits_that_are_not_finite_are_refused(smp18_graphs: Graphs) -> None:
    model = network("smp18")
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)
    with pytest.raises(VerificationError, match="NaN or infinite"):
        verify_graphs(model, smp18_graphs)


def reference(*pixels: tuple[float, ...]) -> TorchReference:
    """PyTorch's logits of a row of pixels."""
    return TorchReference(np.array(pixels, np.float32).T[None, :, None, :], (1, len(pixels)))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_only_near_ties_may_differ(scale: float) -> None:
    """However large the logits are elsewhere, a tie is one within 1e-4."""
    torch_says = reference((scale, 0.0), (7.0, 7.0 - 0.5e-4), (7.0, 7.0 - 1.5e-4))
    assert torch_says.near_ties.ravel().tolist() == [False, True, False]
    for labels, wrong in (([0, 0, 0], 0), ([0, 1, 0], 0), ([1, 0, 0], 1), ([0, 0, 1], 1), ([1, 1, 1], 2)):
        row = torch_says.compare("", np.array(labels, np.uint8)[None, None], torch_says.logits)
        assert row.wrong_labels == wrong and row.holds == (wrong == 0) and row.near_ties == 1
    assert row.widest_change == pytest.approx(scale)


@pytest.mark.parametrize(("label", "wrong"), [(0, 0), (1, 1), (2, 0), (3, 1), (255, 1)])
def test_a_near_tie_takes_one_of_its_two_best_classes(label: int, wrong: int) -> None:
    torch_says = reference((3.0, 3.0 - 2e-5, 3.0 - 1e-5, 0.0))
    row = torch_says.compare("", np.full((1, 1, 1), label, np.uint8), torch_says.logits)
    assert row.wrong_labels == wrong


def test_logits_may_be_off_by_rounding() -> None:
    torch_says = reference((100.0, 0.0))
    for off, holds in ((0.5, True), (2.0, False), (float("nan"), False)):
        logits = torch_says.logits + np.float32(off * LOGITS_TOLERANCE * 100)
        assert torch_says.compare("", torch_says.labels, logits).holds == holds


def test_frames_are_repeatable_and_varied() -> None:
    frames = sample_frames(2, 45, 70)
    assert frames.shape == (2, 45, 70, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, sample_frames(2, 45, 70))
    assert not np.array_equal(frames[0], frames[1])
    assert frames.std() > 10
