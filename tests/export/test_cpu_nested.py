"""The form for CPUs, depth first: the same labels and logits however deep it is cut, in less memory."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from export_samples import MEAN, STD, interleaved, network, noise, normalised, ort

from export.cpu import convolution, form, nested, tiling
from export.ends import LABELS, LOGITS
from export.graphs import Graphs, Rewriting, contract_for, graphs_from_network
from training.networks.base import SegmentationNet

SIZE = (64, 160)
DEPTHS = {0: 1 << 40, 1: 40_000, 2: 10_000, 3: 1}
"""MAP_BYTES by how many cuts it makes in the trunk of SMP-18 of width 4 at SIZE, whose largest map has 80 KiB."""


@pytest.fixture(scope="module")
def model() -> SegmentationNet:
    return network("smp18")


def graphs_at(
    model: SegmentationNet, limit: int, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] = SIZE
) -> Graphs:
    monkeypatch.setattr(form, "gains", lambda *_: True)
    monkeypatch.setattr(nested, "MAP_BYTES", limit)
    contract = contract_for(size, model.stride, MEAN, STD)
    return graphs_from_network(model, contract, 2, logits=True, rewriting=Rewriting(target="cpu"))


def cuts(graph: onnx.GraphProto) -> int:
    """How deep Scans over split batches are inside each other."""
    inner = [
        attribute.g
        for node in graph.node
        if node.op_type == "Scan" and node.name.startswith("split_batches")
        for attribute in node.attribute
        if attribute.name == "body"
    ]
    return max((1 + cuts(body) for body in inner), default=0)


@pytest.mark.parametrize("depth", [1, 3, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (0, 2))])
def test_labels_and_logits_are_pytorchs(model: SegmentationNet, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = graphs_at(model, DEPTHS[depth], monkeypatch)
    trunk = graphs.cpu["trunk"]
    assert cuts(ir.to_proto(trunk).graph) == depth
    frame = noise(1, *SIZE)
    with torch.no_grad():
        expected = model(normalised(frame)).numpy()[0]
    assert graphs.cut is not None
    stem = graphs.cpu.get("stem", graphs.parts["stem"])
    found = interleaved(stem, trunk, graphs.cut, frame[0], SIZE)
    np.testing.assert_allclose(found[LOGITS], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found[LABELS], found[LOGITS].argmax(0))


def test_any_number_of_split_batches_goes_through_at_once(
    model: SegmentationNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (40, 150)  # padded
    graphs = graphs_at(model, DEPTHS[1], monkeypatch, size)
    features = ort(graphs.parts["stem"], {"frames": noise(1, *size)})
    alone = [ort(graphs.cpu["trunk"], {n: v[i, None] for n, v in features.items()}) for i in range(16)]
    for chunk in ([3], [11, 2], [5, 0, 7]):
        together = ort(graphs.cpu["trunk"], {name: value[chunk] for name, value in features.items()})
        for name in (LABELS, LOGITS):
            np.testing.assert_array_equal(together[name], np.concatenate([alone[index][name] for index in chunk]))


def largest(graph: onnx.GraphProto) -> int:
    """Numbers in the largest value that a graph computes for one batch, outside of graphs inside it."""
    constants = {value.name for value in graph.initializer}
    shapes = [info.type.tensor_type.shape.dim for info in graph.value_info if info.name not in constants]
    return max(prod(d.dim_value or 1 for d in shape) for shape in shapes)


def deepest(model: ir.Model) -> onnx.GraphProto:
    """What is scanned over split batches and scans none itself."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    while cuts(graph):
        (scan,) = (node for node in graph.node if node.op_type == "Scan" and node.name.startswith("split_batches"))
        (graph,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    return graph


def test_a_body_takes_a_sixteenth_at_two_levels(model: SegmentationNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of everything, points included: bands and groups are off, so that all of a convolution is in one graph."""
    monkeypatch.setattr(convolution, "CACHE_BYTES", 1 << 40)
    monkeypatch.setattr(tiling, "LONGEST", 1 << 40)
    whole = largest(deepest(graphs_at(model, DEPTHS[0], monkeypatch).cpu["trunk"]))
    body = largest(deepest(graphs_at(model, DEPTHS[2], monkeypatch).cpu["trunk"]))
    assert whole == 16 * body


def test_what_stays_a_convolution_is_in_no_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime must be able to read what it optimised: its blocked layout has the same names in every graph."""
    monkeypatch.setattr(nested, "MAP_BYTES", 1)
    model = network("smp18", width=8)
    contract = contract_for((32, 64), model.stride, MEAN, STD)
    graphs = graphs_from_network(model, contract, 2, rewriting=Rewriting(target="cpu"))
    trunk = ir.to_proto(graphs.cpu["trunk"])
    assert cuts(trunk.graph) == 1 and any(node.op_type == "Conv" for node in trunk.graph.node)
    path, engine = tmp_path / "trunk.onnx", tmp_path / "engine.onnx"
    path.write_bytes(trunk.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(engine), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    features = ort(graphs.parts["stem"], {"frames": noise(1, 32, 64)})
    (labels,) = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"]).run(None, features)
    np.testing.assert_array_equal(labels, ort(graphs.parts["trunk"], features)[LABELS])


def test_weights_lie_outside_of_bodies(model: SegmentationNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ONNX Runtime keeps them once; a body has shapes alone."""
    trunk = ir.to_proto(graphs_at(model, DEPTHS[3], monkeypatch).cpu["trunk"]).graph
    bodies = list(inside(trunk))
    assert len(bodies) == 3
    assert all(len(onnx.numpy_helper.to_array(t).tobytes()) <= 1024 for body in bodies for t in body.initializer)
    names = [tensor.name for graph in (trunk, *bodies) for tensor in graph.initializer]
    assert len(names) == len(set(names))
    points = [tensor for tensor in trunk.initializer if len(tensor.dims) == 6]  # [1,points,1,points,out,in]
    assert len(points) == sum(1 for node in nodes_of(trunk, *bodies) if set(node.input) & {t.name for t in points}) > 10


def inside(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """All graphs inside a graph."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g
                yield from inside(attribute.g)


def nodes_of(*graphs: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for graph in graphs for node in graph.node]
