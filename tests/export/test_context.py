"""Networks that take a mean over the whole image, at output stride 1: cut, streamed, with the mean that they had."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from export_samples import MEAN, STD, interleaved, network, noise, normalised, ort
from numpy.typing import NDArray
from torch import Tensor, nn

from export.atrous import AtOutputStride
from export.graphs import Graphs, Rewriting, contract_for, graphs_from_network, whole_from_network
from export.nodes import is_mask
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES
from training.checkpoint import save_checkpoint
from training.networks.base import SegmentationNet, pad_to_stride, resize
from training.networks.deeplab import DeepLabv3

SIZE = HEIGHT, WIDTH = 64, 90
PADDED = 64 * 96


def exported(model: SegmentationNet, size: tuple[int, int] = SIZE, level: int = 2, form: str = "own") -> Graphs:
    contract = contract_for(size, model.stride, MEAN, STD)
    return graphs_from_network(model, contract, level, True, Rewriting(form, 1))


def streamed(graphs: Graphs, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits `[C,H,W]` from one split batch at a time, whose labels are those of the whole graph."""
    assert graphs.cut is not None
    size = frame.shape[0], frame.shape[1]
    found = interleaved(graphs.parts["stem"], graphs.parts["trunk"], graphs.cut, frame, size)
    whole = ort(graphs.parts["model"], {"frames": frame[None]})
    np.testing.assert_array_equal(found["labels"], whole["labels"][0])
    return found["logits"].astype(np.float32)


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def deeplab() -> DeepLabv3:
    model = network("deeplabv3-50")
    assert isinstance(model, DeepLabv3)
    return model


@pytest.fixture(scope="module")
def graphs(deeplab: DeepLabv3) -> Graphs:
    return exported(deeplab)


def test_every_16th_pixel_is_what_the_network_said_itself(deeplab: DeepLabv3, graphs: Graphs) -> None:
    """Independent of any rewriting, and only with the mean that the network takes itself; moved by 8 pixels."""
    (frame,) = noise(1, *SIZE)
    x = normalised(frame[None])
    with torch.no_grad():
        own = deeplab.scores(deeplab.last_features(pad_to_stride(x, 16)))[0].numpy()
        dense = AtOutputStride(deeplab, 1)(x)[0].numpy()
    found = streamed(graphs, frame)
    assert_close(found, dense)
    at = found[:, 8::16, 8::16]
    assert_close(at, own[:, : at.shape[1], : at.shape[2]])


def test_nothing_dense_is_made_behind_the_first_convolution(graphs: Graphs) -> None:
    """Of one frame the stem makes what conv1 makes, the trunk what layer4 makes of a split batch: a sixteenth."""
    frame = noise(1, *SIZE)
    stem, features = numbers_made(graphs.parts["stem"], {"frames": frame})
    one_batch = {name: value[5, None] for name, value in features.items()}
    trunk, _ = numbers_made(graphs.parts["trunk"], one_batch)
    whole, _ = numbers_made(graphs.parts["model"], {"frames": frame})
    assert {name: value.shape for name, value in features.items()} == {
        "features.0": (16, 4, 16, 24),
        "features.1": (16, 16, 4, 4),
    }
    assert max(stem.values()) == stem["conv1"] == 4 * PADDED
    assert max(trunk.values()) == trunk["layer4.2.conv3"] == 128 * PADDED // 16
    assert max(whole.values()) == 128 * PADDED
    assert stem["layer4.2.conv3.context"] == 128 * PADDED // 16**2


def numbers_made(part: ir.Model, feeds: Mapping[str, NDArray[Any]]) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
    """How many numbers each operator returns when the graph is run, and the graph's own outputs."""
    proto = ir.to_proto(part)
    own = [value.name for value in proto.graph.output]
    names = [node.output[0] for node in proto.graph.node]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(names, dict(feeds)), strict=True))
    return {name: prod(value.shape) for name, value in values.items()}, {name: values[name] for name in own}


class Squeezing(SegmentationNet):
    """Hand-made: a squeeze-and-excitation behind each reduction, and the image's mean behind dilated convolutions."""

    def __init__(self) -> None:
        super().__init__(4, 6, 8)
        torch.manual_seed(1)
        self.reduce = nn.ModuleList(nn.Conv2d(inputs, 6, 3, 2, 1) for inputs in (3, 6, 6))
        self.gates = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(3))
        self.branch, self.again = nn.Conv2d(6, 6, 3, padding=3, dilation=3), nn.Conv2d(6, 6, 3, padding=3, dilation=3)
        self.image, self.classifier = nn.Conv2d(6, 6, 1), nn.Conv2d(12, 4, 1)

    def padded_logits(self, x: Tensor) -> Tensor:
        whole = x
        for convolution, gate in zip(self.reduce, self.gates, strict=True):
            x = convolution(x).relu()
            x = x * (4 * gate(x.mean((2, 3), keepdim=True))).sigmoid()
        x = self.again(self.branch(x).relu())
        image = self.image(x.mean((2, 3), keepdim=True)).relu()
        joined = torch.cat([x, resize(image, x)], dim=1)
        return resize(self.classifier(joined), whole)


@pytest.mark.parametrize(("form", "level"), [("own", 1), ("own", 2), ("split", 2), ("dilated", 0)])
def test_means_at_several_depths(form: str, level: int) -> None:
    """In split form both the stem's copies and the trunk mask what their windows do not divide."""
    model = Squeezing().eval()
    size = 36, 52
    result = exported(model, size, level, form)
    (frame,) = noise(1, *size)
    with torch.no_grad():
        expected = AtOutputStride(model, 1)(normalised(frame[None]))[0].numpy()
    whole = ort(result.parts["model"], {"frames": frame[None]})
    assert_close(whole["logits"][0], expected)
    if level:
        assert_close(streamed(result, frame), expected)
    if form == "split":
        nodes = whole_from_network(model, result.contract, rewriting=result.rewriting).graph
        assert {is_mask(node) and "context" in (node.name or "") for node in nodes if is_mask(node)} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["own", "split"])
@pytest.mark.parametrize(
    "name",
    [
        "deeplabv3-50,output_stride=8",
        "deeplabv3-50,output_stride=16,multi_grid=1.2.1",
        "deeplabv3-50,output_stride=32,multi_grid=1.1.1",
        "deeplabv3-block5-50",
        "aspp-50",
        "encnet-50",
        "fastfcn-aspp-50",
        "fastfcn-encnet-50",
    ],
)
def test_every_network_with_one_mean(name: str, form: str) -> None:
    model = network(name, width=2)
    graphs = exported(model, (70, 100), form=form)
    (frame,) = noise(1, 70, 100)
    with torch.no_grad():
        expected = AtOutputStride(model, 1)(normalised(frame[None]))[0].numpy()
    assert_close(streamed(graphs, frame), expected)


class Pyramid(SegmentationNet):
    """Means over 2x2 cells, spread over the map again."""

    def __init__(self) -> None:
        super().__init__(4, 6, 4)
        self.reduce, self.classifier = nn.Conv2d(3, 6, 3, 4, 1), nn.Conv2d(12, 4, 1)

    def padded_logits(self, x: Tensor) -> Tensor:
        small = self.reduce(x)
        halves = small.new_tensor([[1.0] * 8 + [0.0] * 8, [0.0] * 8 + [1.0] * 8]) / 8
        cells = halves @ small @ halves.T
        return resize(self.classifier(torch.cat([small, resize(cells, small)], dim=1)), x)


def test_pyramids_of_means_are_refused() -> None:
    """Whether or not their cells could pass for a map of the image."""
    model = Pyramid().eval()
    with pytest.raises(InputError, match=r"spreads 6x2x2 over the image, as pyramids of means do.*without --output"):
        exported(model, (64, 64))


@pytest.mark.slow
def test_it_is_built_run_and_compared_in_parts(tmp_path: Path) -> None:
    """The executor hands both of the stem's tensors to the trunk, a split batch at a time."""
    model = network("deeplabv3-50", 2, len(CITYSCAPES))
    save_checkpoint(tmp_path / "a.safetensors", model, "deeplabv3-50", CITYSCAPES, mean=MEAN, std=STD)
    folder, size = str(tmp_path / "p"), ["--size", "64x90"]
    export = ["export", "--checkpoint", str(tmp_path / "a.safetensors"), "--package", folder, "--output-stride", "1"]
    assert main([*export, *size]) == 0
    assert main(["build", "--package", folder, "--backend", "onnxruntime"]) == 0
    (frame,) = noise(1, *SIZE)
    cv2.imwrite(str(tmp_path / "a.png"), frame)
    assert main(["run", str(tmp_path / "a.png"), "--package", folder, "--masks", str(tmp_path / "masks")]) == 0
    (mask,) = (tmp_path / "masks").iterdir()
    with torch.no_grad():
        expected = AtOutputStride(model, 1)(normalised(frame[None]))[0].argmax(0).numpy()
    assert (cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) == expected).mean() > 0.999
    compare = ["compare", "--package", folder, "--data", "drive:7", "--images", "1", "--json", str(tmp_path / "c.json")]
    assert main(compare) in (0, 1)  # against the network at its own stride, which scores otherwise
    assert json.loads((tmp_path / "c.json").read_text())["images"] == 1
