"""What is, and is not, in exported graphs."""

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from export.graphs import Graphs
from export.simplify import _factor
from training.networks.base import SegmentationNet

FRONT = {"Cast": 1, "Transpose": 1, "Sub": 1, "Mul": 1}
END = {"ArgMax": 1, "Cast": 2}


def poolings(count: int) -> Counter[str]:
    return Counter(Reshape=2 * count, Transpose=count)


def census(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def test_operators_of_smp18_cut_behind_two_splits(smp18_graphs: Graphs) -> None:
    splits = 2 * 3  # main branch and shortcut at levels 3, 4 and 5
    stem = Counter(FRONT) + Counter(Conv=1, Relu=1) + poolings(1)
    trunk = Counter(Conv=20, Relu=16, Add=8) + poolings(splits + 1) + Counter(END)
    assert census(smp18_graphs.parts["stem"]) == stem
    assert census(smp18_graphs.parts["trunk"]) == trunk
    assert census(smp18_graphs.parts["model"]) == stem + trunk


def test_tensors_fit_tensorrt(smp18_graphs: Graphs) -> None:
    """At most 8 dimensions; uint8 at the ends only, straight into and out of a Cast; nothing custom."""
    for part in smp18_graphs.parts.values():
        ends = {*part.graph.inputs, *part.graph.outputs}
        for node in part.graph:
            assert node.domain == ""
            for value in node.outputs:
                assert value.shape is not None and len(value.shape) <= 8
                assert value.dtype != ir.DataType.UINT8 or value in ends
        for value in ends:
            if value.dtype == ir.DataType.UINT8:
                nodes = list(value.consumers()) or [value.producer()]
                assert [node.op_type for node in nodes if node] == ["Cast"]


def test_only_the_batch_is_free(smp18_graphs: Graphs) -> None:
    for part in smp18_graphs.parts.values():
        for value in (*part.graph.inputs, *part.graph.outputs, *(o for node in part.graph for o in node.outputs)):
            assert value.shape is not None
            assert all(isinstance(size, int) for size in list(value.shape)[1:]), value


def test_argmax_is_taken_before_merging(smp18_graphs: Graphs) -> None:
    for name in ("model", "trunk"):
        (argmax,) = (node for node in smp18_graphs.parts[name].graph if node.op_type == "ArgMax")
        assert argmax.inputs[0] is not None
        producer = argmax.inputs[0].producer()
        assert producer is not None and producer.name == "classifier"
        value, behind = argmax.outputs[0], []
        while value.consumers():
            (reader,) = value.consumers()
            behind.append(reader.op_type)
            value = reader.outputs[0]
        assert behind == ["Cast", "Reshape", "Transpose", "Reshape", "Cast"]


def test_pointwise_operators_before_a_split_stay_in_the_stem(smp18_graphs: Graphs) -> None:
    relu = smp18_graphs.parts["stem"].graph.node("relu")
    assert [node.op_type for node in relu.outputs[0].consumers()] == ["Reshape"]


def test_convolutions_have_the_names_of_pytorchs_modules(smp18: SegmentationNet, smp18_graphs: Graphs) -> None:
    modules = {name for name, _ in smp18.named_modules()}
    convolutions = [node.name for node in smp18_graphs.parts["model"].graph if node.op_type == "Conv"]
    assert len(set(convolutions)) == len(convolutions) == 21
    assert set(convolutions) <= modules
    for part in smp18_graphs.parts.values():
        assert all(node.name for node in part.graph)


def test_stem_and_trunk_name_what_passes_between_them_alike(smp18_graphs: Graphs) -> None:
    assert [value.name for value in smp18_graphs.parts["stem"].graph.outputs] == ["features"]
    assert [value.name for value in smp18_graphs.parts["trunk"].graph.inputs] == ["features"]


def test_no_trace_of_the_machine_is_left(smp18_graphs: Graphs) -> None:
    for part in smp18_graphs.parts.values():
        assert not part.metadata_props and not part.graph.metadata_props
        data = ir.to_proto(part).SerializeToString()
        for trace in (b".py", b"site-packages", os.fsencode(Path.cwd()), b"torch", b"unk__"):
            assert trace not in data


EXPORT_AND_HASH = """
import hashlib, onnx_ir as ir
from export_samples import MEAN, STD, network
from export.graphs import contract_for, graphs_from_network
graphs = graphs_from_network(network("smp18"), contract_for((64, 96), 32, MEAN, STD), cut_level=2)
for name, part in graphs.parts.items():
    print(name, hashlib.sha256(ir.to_proto(part).SerializeToString(deterministic=True)).hexdigest())
"""


def test_another_process_exports_the_same_bytes(smp18_graphs: Graphs) -> None:
    """Python's hashes are seeded anew there, so that an order taken from a set would show."""
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here.parents[1]), str(here)])
    result = subprocess.run(
        [sys.executable, "-c", EXPORT_AND_HASH],
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    for line in result.stdout.splitlines():
        name, digest = line.split()
        data = ir.to_proto(smp18_graphs.parts[name]).SerializeToString(deterministic=True)
        assert hashlib.sha256(data).hexdigest() == digest
    assert len(result.stdout.splitlines()) == 3


@pytest.mark.parametrize("part", ["model", "stem", "trunk"])
def test_padding_and_cropping_are_left_out_where_sizes_fit(smp18_graphs: Graphs, part: str) -> None:
    assert not {"Pad", "Slice"} & set(census(smp18_graphs.parts[part]))


def test_resizing_factors_give_the_size_in_either_precision() -> None:
    for small, large in itertools.product(range(1, 70), range(1, 70)):
        factor = _factor(small, large)
        assert np.floor(np.float32(small) * factor) == np.floor(small * np.float64(factor)) == large
