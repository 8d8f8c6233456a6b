"""int8 of networks that export has rewritten: masks on split batches, and a mean that is handed to a trunk."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")

from quantise_samples import MEAN, STD, frames, largest, randomised, run

from calibration.half import half_graph
from calibration.placement import convolutions, quantised_graph, quantised_tensors
from export.graphs import Graphs, Rewriting, contract_for, graphs_from_network
from training.models import create_model

SIZE = 70, 100  # whose features no rate divides
MASKED = "dilatedfcn8-18"
IN_PARTS = "deeplabv3-50,output_stride=32"


@cache
def rewritten(name: str, rewriting: Rewriting) -> Graphs:
    torch.manual_seed(3)
    model = randomised(create_model(name, 7, 4))
    return graphs_from_network(model, contract_for(SIZE, model.stride, MEAN, STD), logits=True, rewriting=rewriting)


def masked() -> onnx.ModelProto:
    return ir.to_proto(rewritten(MASKED, Rewriting("split")).parts["model"])


def test_masks_in_int8_and_half() -> None:
    """What int8 with fine steps makes of a masked graph is what float32 does, nearly; half precision, more nearly."""
    model, feeds = masked(), {"frames": frames(SIZE)}
    masks = [node.name for node in model.graph.node if node.op_type == "Where"]
    assert len(masks) == 6
    expected = run(model, feeds)["logits"]
    found = largest(model, feeds)
    thresholds = {name: found[name] for name in quantised_tensors(model)}
    scale = np.abs(expected).max()
    for precision, graph, most in (
        ("int8", quantised_graph(model, thresholds, rest="fp32"), 0.1),
        ("fp16", half_graph(model), 0.01),
    ):
        assert [node.name for node in graph.graph.node if node.op_type == "Where"] == masks, precision
        off = np.abs(run(graph, feeds)["logits"].astype(np.float32) - expected).max()
        assert off < most * scale, precision


def test_a_mask_stays_exact_in_int8() -> None:
    """Beyond the image there is zero, which int8 holds exactly; without its masks the graph is another one."""
    model, feeds = masked(), {"frames": frames(SIZE)}
    thresholds = dict.fromkeys(quantised_tensors(model), 2.0)
    graph = quantised_graph(model, thresholds, rest="fp32")
    names = [node.output[0] for node in graph.graph.node if node.op_type == "Where"]
    keep = {node.output[0]: node.input[0] for node in graph.graph.node if node.op_type == "Where"}
    inside = {value.name: onnx.numpy_helper.to_array(value) for value in graph.graph.initializer}
    values = run(graph, feeds, names)
    for name in names:
        beyond = np.broadcast_to(~inside[keep[name]], values[name].shape)
        assert beyond.any() and not values[name][beyond].any() and values[name][~beyond].any()


@pytest.mark.parametrize(
    "which", ["masked", *(pytest.param(part, marks=pytest.mark.slow) for part in ("stem", "trunk"))]
)
def test_tensorrt_rtx_computes_every_convolution_in_int8(which: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    from test_placement_rtx import built, quantised

    if which == "masked":
        model, features = masked(), ()
    else:
        graphs = rewritten(IN_PARTS, Rewriting(output_stride=1))
        model, features = ir.to_proto(graphs.parts[which]), ("features.0", "features.1")
    types, _ = built(quantised(model, features=features), tmp_path)
    assert types == dict.fromkeys(convolutions(model), "Int8")
