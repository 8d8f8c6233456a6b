"""What the builder prints of a plan's layers, and what the engine inspector tells: the same facts in two forms."""

import json
from typing import Any

from emulator.enums import DataType, LayerType
from emulator.network import ILayer, INetworkDefinition, ITensor

__all__ = ["inspector_json", "layer_lines", "layers_of"]

_WORDS = {
    DataType.FLOAT: "Float",
    DataType.HALF: "Half",
    DataType.INT8: "Int8",
    DataType.INT32: "Int32",
    DataType.INT64: "Int64",
    DataType.BOOL: "Bool",
    DataType.UINT8: "UInt8",
}
_KINDS = {LayerType.CONVOLUTION: "CaskConvolution", LayerType.SHUFFLE: "Shuffle", LayerType.CAST: "Cast"}


def layers_of(network: INetworkDefinition) -> list[dict[str, Any]]:
    """The layers of the plan. Dequantising is part of the layer that follows, constants are no layers."""
    made = {output.name: layer for layer in network._layers for output in layer._outputs}
    found = []
    for layer in network._layers:
        if layer.type in (LayerType.DEQUANTIZE, LayerType.CONSTANT):
            continue
        inputs = [_before_dequantising(tensor, made) for tensor in layer._inputs if tensor is not None]
        constants = [tensor for tensor in inputs if _is_constant(tensor, made, network)]
        found.append(
            {
                "name": layer.name,
                "kind": _KINDS.get(layer.type, "kgen"),
                "inputs": [_facts(tensor) for tensor in inputs if tensor not in constants],
                "constants": [_facts(tensor) for tensor in constants],
                "outputs": [_facts(tensor) for tensor in layer._outputs],
                "metadata": layer.metadata,
            }
        )
    return found


def layer_lines(layers: list[dict[str, Any]]) -> str:
    """The dump of a VERBOSE build with detailed profiling: a line a layer."""
    return "Layers:\n" + "".join(
        f"Name: {layer['name']}, LayerType: {layer['kind']}, Inputs: [{_listed(layer['inputs'])}], "
        f"Constants: [{_listed(layer['constants'])}], Outputs: [{_listed(layer['outputs'])}], "
        f"TacticName: emulated, StreamId: 0, Metadata: {layer['metadata']}\n"
        for layer in layers
    )


def inspector_json(layers: list[dict[str, Any]], bindings: list[str], detailed: bool) -> str:
    """The engine inspector's words: names alone where the plan was built without detailed profiling."""
    told: list[Any] = [layer["name"] for layer in layers]
    if detailed:
        told = [_inspected(layer) for layer in layers]
    return json.dumps({"Layers": told, "Bindings": bindings})


def _inspected(layer: dict[str, Any]) -> dict[str, Any]:
    told = {
        "Name": layer["name"],
        "LayerType": layer["kind"],
        "Inputs": [_inspected_tensor(tensor) for tensor in layer["inputs"]],
        "Outputs": [_inspected_tensor(tensor) for tensor in layer["outputs"]],
        "StreamId": 0,
        "Metadata": layer["metadata"],
    }
    if layer["kind"] == "CaskConvolution" and layer["constants"]:
        weights = layer["constants"][0]
        count = 1
        for size in weights["shape"]:
            count *= size
        told["Weights"] = {"Type": weights["dtype"], "Count": count}
    return told


def _inspected_tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": tensor["name"],
        "Location": "Device",
        "Dimensions": tensor["shape"],
        "Format/Datatype": tensor["dtype"],
    }


def _before_dequantising(tensor: ITensor, made: dict[str, ILayer]) -> ITensor:
    maker = made.get(tensor.name)
    if maker is not None and maker.type == LayerType.DEQUANTIZE:
        source = maker.get_input(0)
        assert source is not None
        return source
    return tensor


def _is_constant(tensor: ITensor, made: dict[str, ILayer], network: INetworkDefinition) -> bool:
    maker = made.get(tensor.name)
    if maker is None:
        return tensor not in network._inputs
    return bool(maker.type == LayerType.CONSTANT)


def _facts(tensor: ITensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": _WORDS[tensor.dtype]}


def _listed(tensors: list[dict[str, Any]]) -> str:
    parts = (
        f"{{ Name: {t['name']}, Dimensions: [{','.join(map(str, t['shape']))}], Datatype: {t['dtype']} }}"
        for t in tensors
    )
    return " " + ", ".join(parts) if tensors else ""
