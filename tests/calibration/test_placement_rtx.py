"""TensorRT-RTX computes in int8 what placement says, for GPUs that are not here: read from its layer dump."""

from pathlib import Path

import onnx
import pytest

pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
pytest.importorskip("onnx_ir", reason="pip install 'splitmerge[export]'")
pytest.importorskip("torch", reason="pip install 'splitmerge[export]'")

from quantise_samples import PADDED, UNPADDED, part

from calibration.half import carried
from calibration.placement import convolutions, quantised_graph, quantised_tensors
from engines.compiler import GpuOptions
from engines.tensorrt_builder import TensorRTCompiler
from splitmerge.package import Graph, TensorInfo

CAPABILITIES = [pytest.param("8.6", marks=pytest.mark.slow), "8.9", pytest.param("12.0", marks=pytest.mark.slow)]


def built(
    model: onnx.ModelProto, folder: Path, capability: str = "8.9"
) -> tuple[dict[str, str], list[dict[str, list[str]]]]:
    """The type of each convolution of a plan, and its layers with the types they read and write."""
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    inputs = tuple(
        TensorInfo(
            value.name,
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            tuple(size.dim_value or None for size in value.type.tensor_type.shape.dim),
        )
        for value in model.graph.input
    )
    compiler = TensorRTCompiler("tensorrt-rtx", GpuOptions(capability, 1, 2, 4), "int8")
    build = compiler(path, Graph(path.name, "", inputs, ()), folder / "trunk.rtx").build
    return {name: types["found"] for name, types in build["convolution_types"].items()}, build["layers"]


def quantised(model: onnx.ModelProto, rest: str = "fp16", features: tuple[str, ...] = ()) -> onnx.ModelProto:
    thresholds = dict.fromkeys(quantised_tensors(model, features=features), 2.0)
    return quantised_graph(model, thresholds, rest=rest, features=features)


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
@pytest.mark.parametrize("which", ["stem", "trunk", "model"])
def test_every_convolution_of_smp18_reads_int8(which: str, capability: str, tmp_path: Path) -> None:
    model = part("smp18", which, PADDED)
    types, layers = built(quantised(model), tmp_path, capability)
    assert types == dict.fromkeys(convolutions(model), "Int8")
    assert len(types) == {"stem": 1, "trunk": 20, "model": 21}[which]
    if which != "stem":
        check_splits(layers)


def check_splits(layers: list[dict[str, list[str]]]) -> None:
    """Splits move in the kernels that requantise, which write int8; merges of labels in one that writes uint8."""
    splits = [layer for layer in layers if any(".split" in name and name.endswith(".turned") for name in layer["onnx"])]
    assert sum(name.endswith(".turned") and ".split" in name for layer in splits for name in layer["onnx"]) == 6
    assert {tuple(layer["outputs"]) for layer in splits} == {("Int8",)}
    assert all(any(name.endswith(".quantise") for name in layer["onnx"]) for layer in splits)
    (merge,) = (layer for layer in layers if any("merge" in name for name in layer["onnx"]))
    assert (merge["inputs"], merge["outputs"]) == (("Int32",), ("UInt8",))


def test_bottlenecks_and_int8_features(tmp_path: Path) -> None:
    trunk = part("smp50", "trunk", UNPADDED, 3)
    ends = ("features.0", "features.1")
    types, layers = built(quantised(trunk, features=ends), tmp_path)
    assert types == dict.fromkeys(convolutions(trunk), "Int8")
    assert len(types) == 40
    first = next(layer for layer in layers if layer["inputs"])
    assert first["inputs"][0] == "Int8"  # nothing quantises in front of it


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_fcn8s_and_its_max_pooling_read_and_write_int8(tmp_path: Path, capability: str) -> None:
    model = part("fcn8s-18", "model", PADDED)
    types, layers = built(quantised(model), tmp_path, capability)
    assert types == dict.fromkeys(convolutions(model), "Int8")
    (pooling,) = (layer for layer in layers if "maxpool" in layer["onnx"])
    assert (pooling["inputs"], pooling["outputs"]) == (("Int8",), ("Int8",))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_layers_that_are_left_out_compute_in_the_rest(tmp_path: Path, capability: str) -> None:
    model = part("smp18", "trunk", PADDED)
    left = {"layer1.0.conv1", "layer2.0.downsample.0", "layer3.0.conv2", "classifier"}
    layers = [name for name in convolutions(model) if name not in left]
    thresholds = dict.fromkeys(quantised_tensors(model), 2.0)
    for rest, word in (("fp16", "Half"), ("fp32", "Float")):
        types, _ = built(quantised_graph(model, thresholds, layers, rest), tmp_path, capability)
        assert {name for name, kind in types.items() if kind != "Int8"} == left
        assert {types[name] for name in left} == {word}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_what_stays_float32_round_an_int8_convolution_leaves_it_int8(tmp_path: Path, capability: str) -> None:
    model = part("smp18", "trunk", PADDED)
    thresholds = dict.fromkeys(quantised_tensors(model), 2.0)
    wide = carried([model], ["layer1.0.conv1", "layer2.0.add", "layer3.1.add", "classifier"])
    types, _ = built(quantised_graph(model, thresholds, wide=wide), tmp_path, capability)
    assert types == dict.fromkeys(convolutions(model), "Int8")
