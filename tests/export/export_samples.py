"""Networks, frames and runs that the tests of export share. Nothing here uses export's own way of running graphs."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graphs import Graphs
from splitmerge.package import Cut
from training.models import create_model
from training.networks.base import SegmentationNet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(name: str, width: int = 4, classes: int = 7) -> SegmentationNet:
    """A network in evaluation mode whose batch norms are not the identity."""
    torch.manual_seed(3)
    model = create_model(name, classes, width).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


def noise(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def normalised(frames: NDArray[np.uint8]) -> Tensor:
    """What `create_model`'s networks take, from frames in blue-green-red; written with other words than export's."""
    rgb = frames[..., [2, 1, 0]].astype(np.float64) / 255
    return torch.tensor((rgb - np.array(MEAN)) / np.array(STD), dtype=torch.float32).permute(0, 3, 1, 2)


def ort(model: ir.Model, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, dict(inputs)), strict=True))


def interleaved(
    stem: ir.Model, trunk: ir.Model, cut: Cut, frame: NDArray[np.uint8], size: tuple[int, int]
) -> dict[str, NDArray[np.generic]]:
    """Labels `[H,W]` and, where the trunk gives them, logits `[C,H,W]` of one frame, from one split batch at a time."""
    features = ort(stem, {"frames": frame[None]})
    assert all(len(value) == cut.batches for value in features.values())
    session = onnxruntime.InferenceSession(ir.to_proto(trunk).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    dense: dict[str, NDArray[np.generic]] = {}
    for batch in np.random.default_rng(1).permutation(cut.batches):
        row, column = divmod(int(batch), cut.columns)
        for name, value in zip(names, session.run(None, {n: v[batch, None] for n, v in features.items()}), strict=True):
            *channels, h, w = value.shape[1:]
            target = dense.setdefault(name, np.zeros((*channels, h * cut.rows, w * cut.columns), value.dtype))
            target[..., row :: cut.rows, column :: cut.columns] = value[0]
    return {name: value[..., : size[0], : size[1]] for name, value in dense.items()}


def check_labels(labels: NDArray[np.generic], logits: NDArray[np.float32]) -> None:
    """Labels `[N,H,W]` are the argmax of logits `[N,C,H,W]`, but for pixels that rounding decides; few are."""
    scale = np.abs(logits).max()
    best = logits.max(1)
    chosen = np.take_along_axis(logits, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    assert (best - chosen).max() <= 1e-5 * scale
    assert (labels == logits.argmax(1)).mean() > 0.999


def altered(graphs: Graphs, part: str, fault: Callable[[ir.Graph], None]) -> Graphs:
    model = graphs.parts[part].clone()
    fault(model.graph)
    return dataclasses.replace(graphs, parts={**graphs.parts, part: model})


def perturb(layer: str) -> Callable[[ir.Graph], None]:
    """Add a fifth of the largest weight to one weight of a convolution."""

    def fault(graph: ir.Graph) -> None:
        value = graph.node(layer).inputs[1]
        assert value is not None and value.const_value is not None
        weight = value.const_value.numpy().copy()
        weight.flat[0] += 0.2 * np.abs(weight).max()
        value.const_value = ir.tensor(weight, name=value.name)

    return fault
