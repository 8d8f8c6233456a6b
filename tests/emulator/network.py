"""The emulated parser and network: ONNX checked for what TensorRT refuses, as far as this project has met it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, shape_inference

from emulator.common import Dims, ILogger, Managed
from emulator.enums import DataType, LayerType, NetworkDefinitionCreationFlag, OnnxParserFlag, Severity

__all__ = ["ILayer", "INetworkDefinition", "ITensor", "OnnxParser", "ParserError"]

TYPES = {
    TensorProto.FLOAT: DataType.FLOAT,
    TensorProto.FLOAT16: DataType.HALF,
    TensorProto.INT8: DataType.INT8,
    TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64,
    TensorProto.BOOL: DataType.BOOL,
    TensorProto.UINT8: DataType.UINT8,
}
_KINDS = {
    LayerType.CONVOLUTION: "Conv",
    LayerType.CAST: "Cast",
    LayerType.ACTIVATION: "Relu LeakyRelu Clip Sigmoid Tanh Elu",
    LayerType.POOLING: "MaxPool AveragePool GlobalAveragePool",
    LayerType.SCALE: "BatchNormalization",
    LayerType.SOFTMAX: "Softmax",
    LayerType.DECONVOLUTION: "ConvTranspose",
    LayerType.CONCATENATION: "Concat",
    LayerType.ELEMENTWISE: "Add Sub Mul Div Max Min Pow Equal Greater Less And Or",
    LayerType.UNARY: "Sqrt Exp Log Neg Abs Floor Ceil Erf Not",
    LayerType.SHUFFLE: "Reshape Transpose Flatten DepthToSpace SpaceToDepth Expand",
    LayerType.REDUCE: "ReduceMean ReduceSum ReduceMax ReduceMin",
    LayerType.TOPK: "ArgMax ArgMin TopK",
    LayerType.GATHER: "Gather",
    LayerType.MATRIX_MULTIPLY: "MatMul Gemm",
    LayerType.CONSTANT: "Constant ConstantOfShape",
    LayerType.IDENTITY: "Identity",
    LayerType.SLICE: "Slice Split Pad",
    LayerType.SHAPE: "Shape",
    LayerType.RESIZE: "Resize Upsample",
    LayerType.SELECT: "Where",
    LayerType.QUANTIZE: "QuantizeLinear",
    LayerType.DEQUANTIZE: "DequantizeLinear",
    LayerType.NORMALIZATION: "InstanceNormalization LayerNormalization GroupNormalization",
    LayerType.SQUEEZE: "Squeeze",
    LayerType.UNSQUEEZE: "Unsqueeze",
}
LAYER_TYPES = {operator: kind for kind, words in _KINDS.items() for operator in words.split()}


class ITensor:
    """A tensor of the network; -1 is a free dimension."""

    def __init__(self, name: str, dtype: DataType, shape: list[int], ends: tuple[bool, bool] = (False, False)) -> None:
        self.name, self.dtype, self.shape = name, dtype, Dims(shape)
        self._ends = ends

    is_network_input = property(lambda self: self._ends[0])
    is_network_output = property(lambda self: self._ends[1])


class ILayer:
    """One operator of the ONNX file, with the operator's name."""

    def __init__(self, node: onnx.NodeProto, inputs: list[ITensor | None], outputs: list[ITensor]) -> None:
        self._node, self._inputs, self._outputs = node, inputs, outputs
        self.name, self.type, self.metadata = node.name, LAYER_TYPES[node.op_type], f"[ONNX Layer: {node.name}]"

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def get_output(self, index: int) -> ITensor | None:
        return self._outputs[index] if 0 <= index < len(self._outputs) else None


class INetworkDefinition(Managed):
    """What a parser fills. `model` stays empty until then."""

    def __init__(self, flags: int) -> None:
        self.flags, self.name = flags, ""
        self._model: onnx.ModelProto | None = None
        self._layers: list[ILayer] = []
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    num_layers = property(lambda self: len(self._layers))
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_flag(self, flag: NetworkDefinitionCreationFlag) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ParserError:
    """What the parser does not take."""

    def __init__(self, index: int, node: onnx.NodeProto | None, words: str) -> None:
        self._index, self._node, self._words = index, node, words

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node.name if self._node else ""

    def node_operator(self) -> str:
        return self._node.op_type if self._node else ""

    def desc(self) -> str:
        return self._words


class OnnxParser(Managed):
    """Reads an ONNX file into a network."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []
        self.flags = 0

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def set_flag(self, flag: OnnxParserFlag) -> None:
        self.flags |= 1 << int(flag)

    def parse_from_file(self, model: str) -> bool:
        if not isinstance(model, str):
            raise TypeError("parse_from_file(): incompatible function arguments: a path is a str")
        try:
            proto = onnx.load(model)
        except Exception as error:
            return self._fail(ParserError(-1, None, f"Failed to open or parse {Path(model).name}: {error}"))
        return self._take(proto)

    def parse(self, model: Any, path: str | None = None) -> bool:
        try:
            return self._take(onnx.load_model_from_string(bytes(memoryview(model))))
        except Exception as error:
            return self._fail(ParserError(-1, None, f"Failed to parse the model: {error}"))

    def _fail(self, *errors: ParserError) -> bool:
        self._errors += errors
        for error in errors:
            self._logger.log(Severity.ERROR, f"In node {error.node()} with name: {error.node_name()}: {error.desc()}")
        return False

    def _take(self, model: onnx.ModelProto) -> bool:
        errors = list(_refusals(model))
        if errors:
            return self._fail(*errors)
        try:
            typed = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:
            return self._fail(ParserError(-1, None, str(error)))
        _fill(self._network, model, typed)
        return True


def _refusals(model: onnx.ModelProto) -> Iterator[ParserError]:
    """What TensorRT's parser would not take, operator by operator."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    bytes_in = {v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.UINT8}
    outputs = {value.name for value in graph.output}
    quantisers: set[str] = set()
    for index, node in enumerate(graph.node):
        if node.op_type not in LAYER_TYPES:
            yield ParserError(index, node, f"UNSUPPORTED_NODE: No importer registered for op: {node.op_type}")
        if node.op_type != "Cast" and bytes_in & set(node.input):
            yield ParserError(index, node, "INVALID_NODE: a UINT8 input must be cast before it is used")
        target = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
        if node.op_type == "Cast" and target == TensorProto.UINT8 and not set(node.output) & outputs:
            yield ParserError(index, node, "TensorRT does not support UINT8 types for intermediate tensors!")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = weights.get(node.input[2]) if len(node.input) > 2 else None
            if zero is not None and onnx.numpy_helper.to_array(zero).any():
                yield ParserError(index, node, "Assertion failed: TensorRT only supports zero-points that are 0")
            source = weights.get(node.input[0])
            if source is not None and source.data_type == TensorProto.INT32:
                yield ParserError(index, node, "Assertion failed: INT32 biases cannot be dequantized")
        if node.op_type == "QuantizeLinear":
            if node.name in quantisers:
                yield ParserError(index, node, f"two QuantizeLinear nodes are named {node.name}")
            quantisers.add(node.name)


def _fill(network: INetworkDefinition, model: onnx.ModelProto, typed: onnx.ModelProto) -> None:
    graph = typed.graph
    tensors: dict[str, ITensor] = {}
    inputs, outputs = {v.name for v in graph.input}, {v.name for v in graph.output}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        kind = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        dtype = TYPES.get(kind.elem_type, DataType.FLOAT)
        tensors[value.name] = ITensor(value.name, dtype, shape, (value.name in inputs, value.name in outputs))
    for weight in graph.initializer:
        tensors[weight.name] = ITensor(weight.name, TYPES.get(weight.data_type, DataType.FLOAT), list(weight.dims))
    weights = {weight.name for weight in graph.initializer}
    network._model, network.name = model, graph.name
    network._inputs = [tensors[v.name] for v in graph.input if v.name not in weights]
    network._outputs = [tensors[v.name] for v in graph.output]
    network._layers = [
        ILayer(
            node, [tensors.get(name) for name in node.input if name], [tensors[name] for name in node.output if name]
        )
        for node in graph.node
    ]
