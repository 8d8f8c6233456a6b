"""The builder's side: what the parser refuses, what a plan tells, who takes it, and what is logged."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emulator import EmulatedDevice, Emulator
from emulator.samples import MOST, WIDTH, Box, affine_onnx


def parse(box: Box, nodes: list[onnx.NodeProto], ends: tuple[int, int], weights: dict[str, Any] | None = None) -> Any:
    """The parser after it has seen the nodes, from x to y, of these types."""
    x, y = (helper.make_tensor_value_info(name, kind, [1, 4]) for name, kind in zip("xy", ends, strict=True))
    initial = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "small", [x], [y], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    builder = box.trt.Builder(box.logger())
    parser = box.trt.OnnxParser(builder.create_network(2), box.logger())
    assert parser.parse(model.SerializeToString()) == (parser.num_errors == 0)
    return parser


FLOAT, BYTES = TensorProto.FLOAT, TensorProto.UINT8
SCALE = np.array(0.1, np.float32)
node = helper.make_node
REFUSED: dict[str, tuple[list[onnx.NodeProto], tuple[int, int], dict[str, Any], str]] = {
    "an unknown operator": ([node("BitShift", ["x", "x"], ["y"], "shift", direction="LEFT")], (BYTES, BYTES), {}, "op"),
    "uint8 that is not cast": ([node("Identity", ["x"], ["y"], "same")], (BYTES, BYTES), {}, "UINT8"),
    "uint8 in between": (
        [node("Cast", ["x"], ["b"], "down", to=BYTES), node("Cast", ["b"], ["y"], "up", to=FLOAT)],
        (FLOAT, FLOAT),
        {},
        "intermediate",
    ),
    "a zero-point": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"), node("DequantizeLinear", ["q", "s", "z"], ["y"], "d")],
        (FLOAT, FLOAT),
        {"s": SCALE, "z": np.array(3, np.int8)},
        "zero-points",
    ),
    "an int32 bias": (
        [node("DequantizeLinear", ["b", "s"], ["d"], "bias"), node("Add", ["x", "d"], ["y"], "add")],
        (FLOAT, FLOAT),
        {"s": SCALE, "b": np.zeros(4, np.int32)},
        "INT32",
    ),
    "mixed types": (
        [node("Cast", ["x"], ["h"], "half", to=TensorProto.FLOAT16), node("Add", ["x", "h"], ["y"], "add")],
        (FLOAT, FLOAT),
        {},
        "add",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_the_parser_refuses(box: Box, what: str) -> None:
    nodes, ends, weights, words = REFUSED[what]
    parser = parse(box, nodes, ends, weights)
    assert parser.num_errors >= 1
    assert words in parser.get_error(0).desc()


def test_the_parser_names_the_node(box: Box) -> None:
    parser = parse(box, [node("Relu", ["x"], ["a"], "fine"), node("NoSuch", ["a"], ["y"], "odd")], (FLOAT, FLOAT))
    (error,) = [parser.get_error(i) for i in range(parser.num_errors)]
    assert (error.node(), error.node_name(), error.node_operator()) == (1, "odd", "NoSuch")
    parser.clear_errors()
    assert parser.num_errors == 0
    assert not parser.parse_from_file("nowhere.onnx")


def test_the_network_is_the_files(box: Box) -> None:
    trt, builder = box.trt, box.trt.Builder(box.logger())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert trt.OnnxParser(network, box.logger()).parse(affine_onnx())
    assert [(network.get_layer(i).name, network.get_layer(i).type) for i in range(network.num_layers)] == [
        ("multiply", trt.LayerType.ELEMENTWISE),
        ("add", trt.LayerType.ELEMENTWISE),
    ]
    end = network.get_input(0)
    assert (end.name, end.dtype, str(end.dtype), tuple(end.shape)) == (
        "x",
        trt.DataType.FLOAT,
        "DataType.FLOAT",
        (-1, 64),
    )
    assert network.get_layer(1).get_output(0).name == network.get_output(0).name == "y"


def test_an_engine_tells_its_tensors(box: Box) -> None:
    trt, engine = box.trt, box.engine()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    assert names == ["x", "y"]
    assert [engine.get_tensor_mode(name) for name in names] == [trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT]
    assert trt.nptype(engine.get_tensor_dtype("x")) == np.float32
    shape = engine.get_tensor_shape("x")
    assert shape == (-1, WIDTH) and not isinstance(shape, tuple) and list(shape) == [-1, WIDTH]
    assert engine.get_tensor_profile_shape("x", 0) == [(1, WIDTH), (1, WIDTH), (MOST, WIDTH)]
    assert engine.device_memory_size_v2 == engine.get_device_memory_size_for_profile_v2(0) == 4 * 4 * MOST * WIDTH
    assert engine.num_optimization_profiles == 1
    again = box.engine(engine.serialize())
    assert again.name == "affine"


def test_a_plan_has_tensorrts_header(box: Box) -> None:
    plan = box.build()
    data = bytes(memoryview(plan))
    assert data[:4] == b"ftrt" and tuple(data[24:28]) == (10, 13, 0, 0) and plan.nbytes == len(data)
    assert bytes(box.build()) == data  # the same build gives the same plan


def refusal(box: Box, data: bytes) -> str:
    """What is logged when a plan is not taken."""
    logger = box.logger()
    assert box.trt.Runtime(logger).deserialize_cuda_engine(data) is None
    return str(logger.messages[-1])


def test_garbage_is_no_plan(box: Box) -> None:
    data = bytearray(box.build())
    assert "magicTag" in refusal(box, b"nothing of the kind")
    data[-1] ^= 1
    assert "checksum" in refusal(box, bytes(data))
    assert "checksum" in refusal(box, bytes(data[:-10]))


def test_a_plan_is_for_one_version() -> None:
    with Emulator(version="10.12.0") as emulator:
        plan = bytes(Box(emulator).build())
    with Emulator(version="10.13.0") as emulator:
        told = refusal(Box(emulator), plan)
    assert "Version tag does not match. Note: Current Version: 10.13.0, Serialized Engine Version: 10.12.0" in told


def test_a_plan_is_for_one_capability_and_so_many_multiprocessors(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice(), EmulatedDevice("other", "8.6"), EmulatedDevice("small", multiprocessors=60)])
    plan = bytes(box.build())
    with box.use(1):
        assert "expecting compute 8.6 got compute 8.9, please rebuild" in refusal(box, plan)
    with box.use(2):
        assert "128 multiprocessors and this one has 60" in refusal(box, plan)
        assert box.engine(box.build()).name == "affine"
    level = box.trt.HardwareCompatibilityLevel
    anywhere = box.build(hardware_compatibility_level=level.AMPERE_PLUS)
    alike = box.build(hardware_compatibility_level=level.SAME_COMPUTE_CAPABILITY)
    with box.use(1):
        assert box.engine(anywhere).name == "affine"
        assert "compute 8.6" in refusal(box, alike)
    with box.use(2):
        assert box.engine(alike).name == "affine"


def test_profiles_must_fit(box: Box) -> None:
    trt, logger = box.trt, box.logger()
    profile = trt.Builder(logger).create_optimization_profile()
    with pytest.raises(ValueError, match="rising order"):
        profile.set_shape("x", (2, WIDTH), (1, WIDTH), (4, WIDTH))
    assert profile.get_shape("x") == []
    profile.set_shape("x", (1, WIDTH), (2, WIDTH), (4, WIDTH))
    assert profile.get_shape("x") == [(1, WIDTH), (2, WIDTH), (4, WIDTH)]
    assert (
        trt.Builder(logger)
        .create_builder_config()
        .add_optimization_profile(trt.Builder(logger).create_optimization_profile())
        == -1
    )


def test_the_layers_are_in_the_log_and_in_the_inspector(box: Box) -> None:
    logger, verbosity = box.logger(), box.trt.ProfilingVerbosity
    plan = box.build(logger, profiling_verbosity=verbosity.DETAILED)
    dump = next(message for message in logger.messages if message.startswith("Layers:"))
    assert dump.splitlines()[2].startswith("Name: add, LayerType: kgen, Inputs: [ { Name: twice, Dimensions: [-1,64], ")
    assert dump.splitlines()[2].endswith("Metadata: [ONNX Layer: add]")
    assert any(message == "Total Activation Memory: 4096 bytes" for message in logger.messages)
    inspector = box.engine(plan).create_engine_inspector()
    told = json.loads(inspector.get_engine_information(box.trt.LayerInformationFormat.JSON))
    assert told["Bindings"] == ["x", "y"]
    assert [layer["Name"] for layer in told["Layers"]] == ["multiply", "add"]
    assert told["Layers"][0]["Inputs"][0]["Format/Datatype"] == "Float"
    names = box.engine(box.build()).create_engine_inspector()
    assert json.loads(names.get_engine_information(box.trt.LayerInformationFormat.JSON))["Layers"] == [
        "multiply",
        "add",
    ]


@pytest.mark.parametrize("stop", [False, True])
def test_a_progress_monitor_is_told_and_can_stop(box: Box, stop: bool) -> None:
    told: list[Any] = []

    class Monitor(box.trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            told.append(("start", phase, parent, steps))

        def step_complete(self, phase: str, step: int) -> bool:
            told.append(("step", phase, step))
            return not stop

        def phase_finish(self, phase: str) -> None:
            told.append(("finish", phase))

    plan = box.build(progress_monitor=Monitor())
    assert (plan is None) == stop
    assert told[0] == ("start", "Building Engine", None, 2)
    assert [entry for entry in told if entry[0] == "finish"] == [
        ("finish", "Computing tactics"),
        ("finish", "Building Engine"),
    ]


def test_timing_caches_are_of_a_version_and_a_device(start: Callable[..., Box]) -> None:
    box = start([EmulatedDevice("one"), EmulatedDevice("two")])
    trt = box.trt
    config = trt.Builder(box.logger()).create_builder_config()
    assert config.get_timing_cache() is None
    cache = config.create_timing_cache(b"")
    assert config.set_timing_cache(cache, False) and config.get_timing_cache() is cache
    contents = bytes(memoryview(cache.serialize()))
    with box.use(1):
        other = trt.Builder(box.logger()).create_builder_config()
        assert not other.set_timing_cache(other.create_timing_cache(contents), False)
        assert other.set_timing_cache(other.create_timing_cache(contents), True)
    assert not config.set_timing_cache(config.create_timing_cache(b"garbage"), True)
    assert cache.combine(config.create_timing_cache(contents), False) and cache.reset()


def test_configurations_read_back(box: Box) -> None:
    trt = box.trt
    config = trt.Builder(box.logger()).create_builder_config()
    assert config.get_flag(trt.BuilderFlag.TF32)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    assert [f.name for f in trt.BuilderFlag if config.get_flag(f)] == ["VERSION_COMPATIBLE"]
    config.builder_optimization_level = 9
    assert config.builder_optimization_level == 5
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 20)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 20


def test_loggers_print_what_is_severe(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    trt = box.trt
    logger = trt.Logger(trt.Logger.ERROR)
    logger.log(trt.ILogger.Severity.WARNING, "not this")
    logger.log(trt.Logger.INTERNAL_ERROR, "but this")
    assert capsys.readouterr().err == "[TRT] [I] but this\n"
    with pytest.raises(NotImplementedError):
        trt.ILogger().log(trt.Logger.ERROR, "pure virtual")
