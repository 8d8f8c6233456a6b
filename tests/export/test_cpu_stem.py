"""Stems that compute one split batch at a time, against the plain stem; which stems are rewritten."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, network, noise, ort
from torch import Tensor, nn

from export.cpu import stem
from export.graphs import Graphs, Rewriting, contract_for, graphs_from_network
from training.layers import merge_pool, split_pool


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stem, "MAP_BYTES", 0)


def graphs_of(model: nn.Module, size: tuple[int, int], level: int | None = None) -> Graphs:
    contract = contract_for(size, getattr(model, "stride", 1), MEAN, STD)
    return graphs_from_network(model, contract, level, rewriting=Rewriting(target="cpu"))


def check(graphs: Graphs, size: tuple[int, int]) -> None:
    """The same features as the plain stem for one frame and for three, under the same names; no map of the frame."""
    plain, made = graphs.parts["stem"], graphs.cpu["stem"]
    for batch in (1, 3):
        frames = noise(batch, *size)
        expected, found = ort(plain, {"frames": frames}), ort(made, {"frames": frames})
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].shape == value.shape and found[name].dtype == value.dtype
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * np.abs(value).max())
    assert [str(value.shape) for value in made.graph.outputs] == [str(value.shape) for value in plain.graph.outputs]
    assert not any(node.op_type == "Conv" for node in made.graph)
    (scan,) = (node for node in made.graph if node.op_type == "Scan")
    kinds = [node.op_type for node in scan.attributes["body"].as_graph()]
    assert kinds.count("Conv") == 1 and "Transpose" not in kinds


@pytest.mark.parametrize(("name", "size"), [("smp18", (64, 96)), ("smp18,windows=2.2.2.2.3", (50, 90))])
def test_features_are_the_plain_stems(name: str, size: tuple[int, int]) -> None:
    """Padded, and split by windows that are no squares of two."""
    check(graphs_of(network(name), size), size)


@pytest.mark.parametrize("level", [1, 3])
def test_cut_elsewhere(level: int) -> None:
    """Behind the third split the stem has more convolutions, and stays whole."""
    graphs = graphs_of(network("smp18"), (64, 96), level)
    if level == 1:
        check(graphs, (64, 96))
    else:
        assert "stem" not in graphs.cpu or not any(node.op_type == "Scan" for node in graphs.cpu["stem"].graph)


class Own(nn.Module):
    """A stem of a convolution, an activation and splits of (3,1) and (1,2), and something to compute behind."""

    def __init__(self, activation: nn.Module, first: nn.Conv2d, before_split: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.activation, self.before = first, activation, before_split or nn.Identity()
        self.last = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.activation(self.first(x)))
        x = split_pool(split_pool(x, (3, 1)), (1, 2))
        return merge_pool(merge_pool(self.last(x), (1, 2)), (3, 1))


@pytest.mark.parametrize(
    ("activation", "first"),
    [
        (nn.ReLU6(), nn.Conv2d(3, 6, (5, 3), padding=(2, 1))),
        (nn.LeakyReLU(0.3), nn.Conv2d(3, 6, 3, padding=1, groups=1, bias=False)),
        (nn.Identity(), nn.Conv2d(3, 6, 1)),
    ],
)
def test_other_convolutions_and_activations(activation: nn.Module, first: nn.Conv2d) -> None:
    torch.manual_seed(0)
    check(graphs_of(Own(activation, first).eval(), (24, 36), 2), (24, 36))


class SplitFirst(nn.Module):
    """The image itself is split, then what the convolution makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = split_pool(torch.relu(self.first(split_pool(x, (3, 1)))), (1, 2))
        return merge_pool(merge_pool(self.last(x), (1, 2)), (3, 1))


@pytest.mark.parametrize(
    "model",
    [
        SplitFirst(),
        Own(nn.ReLU(), nn.Conv2d(3, 6, 3, padding=2, dilation=2)),
        Own(nn.ReLU(), nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(3, 1, 1)),
        Own(nn.ReLU(), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)),
    ],
)
def test_other_stems_stay_whole(model: nn.Module) -> None:
    """Dilated, or with something behind the convolution that looks at neighbours or has weights."""
    graphs = graphs_of(model.eval(), (24, 36), 2)
    assert not any(node.op_type == "Scan" for node in graphs.cpu.get("stem", graphs.parts["stem"]).graph)


def test_small_frames_keep_the_plain_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stem, "MAP_BYTES", 4 * 4 * 64 * 96)
    assert "stem" not in graphs_of(network("smp18"), (64, 96)).cpu
    monkeypatch.setattr(stem, "MAP_BYTES", 4 * 4 * 64 * 96 - 1)
    assert "stem" in graphs_of(network("smp18"), (64, 96)).cpu


def test_what_onnx_runtime_optimised_can_be_read(tmp_path: Any) -> None:
    """An engine is such a file; the convolution inside of Scan is in blocked layout there."""
    import onnxruntime

    made = graphs_of(network("smp18", width=16), (64, 96)).cpu["stem"]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "engine.onnx"), 3
    onnxruntime.InferenceSession(ir.to_proto(made).SerializeToString(), options)
    frames = noise(1, 64, 96)
    (found,) = onnxruntime.InferenceSession(tmp_path / "engine.onnx").run(None, {"frames": frames})
    np.testing.assert_array_equal(found, ort(made, {"frames": frames})["features"])
