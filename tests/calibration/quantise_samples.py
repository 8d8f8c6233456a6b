"""Exported networks of width 4, thresholds, and an oracle in float64, for the tests of placement."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import nn

from export.graphs import Graphs, contract_for, graphs_from_network
from training.models import create_model
from training.networks.base import SegmentationNet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Array = NDArray[Any]

PADDED, UNPADDED = (40, 90), (64, 96)  # height and width; 32 divides the second


@cache
def graphs(name: str, size: tuple[int, int] = UNPADDED, cut: int = 2) -> Graphs:
    """A network with random weights."""
    torch.manual_seed(3)
    model = randomised(create_model(name, 7, 4))
    return graphs_from_network(model, contract_for(size, 32, MEAN, STD), cut)


def randomised(model: SegmentationNet) -> SegmentationNet:
    """The network in evaluation mode, with batch norms that are not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def part(name: str, which: str = "model", size: tuple[int, int] = UNPADDED, cut: int = 2) -> onnx.ModelProto:
    return ir.to_proto(graphs(name, size, cut).parts[which])


def frames(size: tuple[int, int], count: int = 1) -> NDArray[np.uint8]:
    """Blocks of 8x8 pixels of one colour, so that there is something for a network to see."""
    height, width = size
    blocks = np.random.default_rng(7).integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], names: Sequence[str] = ()) -> dict[str, Array]:
    """The inputs, all outputs of a graph, and the tensors `names`, from ONNX Runtime as the graph is written.

    Its optimiser would round biases to int32, which moves one activation in a hundred to the next step of int8.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    ends = {value.name for value in (*model.graph.output, *model.graph.input)}
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in ends)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    return dict(feeds) | dict(zip(outputs, session.run(outputs, dict(feeds)), strict=True))


def largest(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, float]:
    """The largest absolute value of every float tensor, moved ones included."""
    found = run(model, feeds, [name for node in model.graph.node for name in node.output])
    return {name: float(np.abs(value).max()) for name, value in found.items() if value.dtype == np.float32}


def headed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph up to the outputs of its classifiers, before they are resized or compared."""
    heads = [node.output[0] for node in model.graph.node if node.name.startswith("classifier")]
    inferred = onnx.shape_inference.infer_shapes(model)
    return onnx.utils.Extractor(inferred).extract_model([value.name for value in model.graph.input], heads)


# Every positive float16 below infinity, rising.
HALVES = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)


def fake(x: Array, largest_value: Array | float) -> NDArray[np.float64]:
    """x in float64 as int8 would hold it, with the scale (or one a leading row) that float16 can hold."""
    scale = HALVES[np.searchsorted(HALVES, np.asarray(largest_value, np.float64) / 127)]
    scale = scale.reshape(-1, *[1] * (x.ndim - 1)) if scale.ndim else scale
    return np.clip(np.rint(x / scale), -128, 127) * scale


def oracle(model: onnx.ModelProto, thresholds: Mapping[str, float], feeds: Mapping[str, Array]) -> list[Array]:
    """The float graph's outputs in float64, each convolution's input and weights and each shortcut rounded to int8.

    Shortcuts are known by the names of ResNets' layers: the side of a block's sum that its last convolution has not
    made. Thresholds are those of the tensors that are read, wherever the graph under test quantises.
    """

    class Conv(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, w: Array, b: Array | None = None, **options: Any) -> tuple[Array]:
            x = fake(x, thresholds[self.onnx_node.input[0]])
            w = fake(w.astype(np.float64), np.abs(w).reshape(len(w), -1).max(axis=1))
            top, left, bottom, right = options["pads"] or (0, 0, 0, 0)
            assert (top, left) == (bottom, right)
            bias = None if b is None else torch.tensor(b, dtype=torch.float64)
            y = nn.functional.conv2d(
                torch.tensor(x), torch.tensor(w), bias, options["strides"] or 1, (top, left), options["dilations"] or 1
            )
            return (y.numpy(),)

    class Add(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, a: Array, b: Array) -> tuple[Array]:
            sides = [a, b]
            if self.onnx_node.name.startswith("layer"):
                (last,) = [i for i, name in enumerate(self.onnx_node.input) if name[-6:] in (".conv2", ".conv3")]
                sides[1 - last] = fake(sides[1 - last], thresholds[self.onnx_node.input[1 - last]])
            return (sides[0] + sides[1],)

    return list(ReferenceEvaluator(model, new_ops=[Conv, Add]).run(None, dict(feeds)))
