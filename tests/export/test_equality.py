"""Exported graphs compute what PyTorch computes, and what the dilated network computes."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, check_labels, interleaved, network, noise, normalised, ort
from torch import Tensor, nn

from export.graphs import Graphs, contract_for, graphs_from_network, graphs_from_whole, whole_from_network
from splitmerge.errors import InputError
from training.networks.base import SegmentationNet
from training.networks.smp import SMP

ODD = contract_for((45, 70), 32, MEAN, STD)


def exported(model: SegmentationNet, size: tuple[int, int], cut: int, logits: bool = True) -> Graphs:
    return graphs_from_network(model, contract_for(size, model.stride, MEAN, STD), cut, logits)


def close(logits: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_frames(smp18: SMP, smp18_graphs: Graphs, count: int) -> None:
    frames = noise(count, 64, 96)
    with torch.no_grad():
        expected = smp18.dilated_logits(normalised(frames)).numpy()
    labels = ort(smp18_graphs.parts["model"], {"frames": frames})["labels"]
    assert labels.dtype == np.uint8 and labels.shape == (count, 64, 96)
    check_labels(labels, expected)


@pytest.mark.parametrize("count", [1, 3, 16])
def test_any_number_of_split_batches(smp18_graphs: Graphs, count: int) -> None:
    features = ort(smp18_graphs.parts["stem"], {"frames": noise(1, 64, 96)})["features"]
    trunk = smp18_graphs.parts["trunk"]
    together = ort(trunk, {"features": features})["labels"]
    some = np.random.default_rng(0).permutation(16)[:count]
    np.testing.assert_array_equal(ort(trunk, {"features": features[some]})["labels"], together[some])


def test_features_are_the_split_batches_in_pixel_order(smp18: SMP, smp18_graphs: Graphs) -> None:
    frames = noise(2, 64, 96)
    features = ort(smp18_graphs.parts["stem"], {"frames": frames})["features"]
    with torch.no_grad():
        full = torch.relu(smp18.bn1(smp18.conv1(normalised(frames)))).numpy()
    for n, row, column in np.ndindex(2, 4, 4):
        close(features[n * 16 + row * 4 + column], full[n, :, row::4, column::4])


@pytest.fixture(scope="module")
def odd(smp18: SMP) -> ir.Model:
    return whole_from_network(smp18, ODD, logits=True)


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4, 5])
def test_every_cut_of_a_frame_that_needs_padding(smp18: SMP, odd: ir.Model, level: int) -> None:
    size = ODD.size
    graphs = graphs_from_whole(odd, ODD, level)
    frame = noise(1, *size)[0]
    with torch.no_grad():
        expected = smp18.dilated_logits(normalised(frame[None])).numpy()
    whole = ort(graphs.parts["model"], {"frames": frame[None]})
    close(whole["logits"], expected)
    check_labels(whole["labels"], expected)
    if level == 0:
        assert graphs.cut is None and set(graphs.parts) == {"model"}
        return
    assert graphs.cut is not None and (graphs.cut.rows, graphs.cut.columns) == (2**level, 2**level)
    found = interleaved(graphs.parts["stem"], graphs.parts["trunk"], graphs.cut, frame, size)
    close(found["logits"], expected[0])
    check_labels(found["labels"][None], expected)


def test_bottlenecks() -> None:
    model = network("smp50")
    assert isinstance(model, SMP)
    graphs = exported(model, (64, 64), 3)
    frame = noise(1, 64, 64)[0]
    with torch.no_grad():
        expected = model.dilated_logits(normalised(frame[None])).numpy()
    assert graphs.cut is not None
    close(ort(graphs.parts["model"], {"frames": frame[None]})["logits"], expected)
    close(interleaved(graphs.parts["stem"], graphs.parts["trunk"], graphs.cut, frame, (64, 64))["logits"], expected[0])


@pytest.mark.parametrize("name", ["fcn32s-18", "fcn8s-18"])
def test_baselines_have_no_cut(name: str) -> None:
    model = network(name)
    graphs = exported(model, (40, 96), cut=2)
    assert graphs.cut is None and set(graphs.parts) == {"model"}
    frames = noise(2, 40, 96)
    with torch.no_grad():
        expected = model(normalised(frames)).numpy()
    found = ort(graphs.parts["model"], {"frames": frames})
    close(found["logits"], expected)
    check_labels(found["labels"], expected)
    operators = {node.op_type for node in graphs.parts["model"].graph}
    assert not operators & {"Shape", "Concat", "Gather", "Reshape", "BatchNormalization"}


def test_exporting_leaves_the_network_as_it_was(smp18: SMP, smp18_graphs: Graphs) -> None:
    """A twin made in the same way, which was not exported, still has the same weights."""
    twin = network("smp18").state_dict()
    assert all(torch.equal(twin[name], value) for name, value in smp18.state_dict().items())
    assert not smp18.training


@pytest.mark.parametrize(("size", "part"), [((31, 64), "31x64"), ((64, 8), "64x8")])
def test_frames_smaller_than_a_window_are_refused(size: tuple[int, int], part: str) -> None:
    with pytest.raises(InputError, match=f"{part}.*32x32"):
        contract_for(size, 32, MEAN, STD)


@pytest.mark.parametrize("level", [6, -1])
def test_levels_that_are_not_there_are_refused(odd: ir.Model, level: int) -> None:
    with pytest.raises(InputError, match="no split level"):
        graphs_from_whole(odd, ODD, level)


class Deciding(nn.Module):
    """What it computes depends on what it sees, which no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 2 * x


def test_networks_that_cannot_be_traced_are_refused_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"cannot trace Deciding at 32x64 .*data-dependent") as caught:
        graphs_from_network(Deciding(), contract_for((32, 64), 32, MEAN, STD))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
