"""Reads which layers a plan has and in which type each computes; no flag tells that.

Without a GPU there is no engine inspector; a VERBOSE logger and detailed profiling print the same facts, one line a
layer, while TensorRT builds. With one the inspector gives them as JSON.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Layer", "layers_from_inspector", "layers_from_log", "types_of_convolutions"]

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>(?:.*?\})??)\], "
    r"(?:Constants: \[(?P<constants>(?:.*?\})??)\], )?Outputs: \[(?P<outputs>(?:.*?\})??)\], (?P<rest>.*)$",
    re.MULTILINE,
)
_TYPE = re.compile(r"Datatype: (\w+)")
_CONSTANT = re.compile(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)")
_ONNX = re.compile(r"\[ONNX Layer: (.*?)\]")

# what computes a convolution, in the words of TensorRT and of TensorRT-RTX; the layers round it name it, too
_CONVOLVES = re.compile("conv|correlation|fusion|gemm|matmul", re.IGNORECASE)

# the inspector says "Half", or with the layout "Channel major FP16 format where channel % 8 == 0"
_WORD = re.compile(r"Float|FP32|Half|BF16|FP16|FP8|UInt8|Int8|Int32|Int64|Bool", re.IGNORECASE)
_WORDS = {"fp32": "Float", "float": "Float", "fp16": "Half", "half": "Half", "uint8": "UInt8", "int8": "Int8"}


@dataclass(frozen=True)
class Layer:
    """One layer of a plan. Types are TensorRT's words (Float, Half, Int8, Int32, UInt8), one per tensor.

    `onnx` names the operators that were fused into it, `weights` is the type of a convolution's weights where they are
    constants.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    onnx: tuple[str, ...]
    weights: str | None = None


def layers_from_log(messages: Iterable[str]) -> list[Layer]:
    """The layers in the logger's messages, in order of execution."""
    return [
        Layer(
            name=match["name"],
            kind=match["kind"],
            inputs=tuple(_TYPE.findall(match["inputs"])),
            outputs=tuple(_TYPE.findall(match["outputs"])),
            onnx=tuple(_ONNX.findall(match["rest"])),
            weights=_weights((_shape(shape), dtype) for shape, dtype in _CONSTANT.findall(match["constants"] or "")),
        )
        for message in messages
        for match in _LAYER.finditer(message)
    ]


def layers_from_inspector(text: str) -> list[Layer]:
    """The layers in an engine inspector's JSON; empty where it holds names alone or is no JSON."""
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return []
    return [_inspected(layer) for layer in layers if isinstance(layer, dict)]


def types_of_convolutions(layers: Iterable[Layer], convolutions: Iterable[str]) -> dict[str, str]:
    """In which type each of the named convolutions computes; `unknown` for those that no layer names.

    The type of the weights, or where those are computed, of the first input: a residual may come before the pixels.
    """
    types: dict[str, tuple[int, str]] = {}
    for layer in layers:
        dtype = layer.weights or next(iter(layer.inputs), None)
        if dtype is None:
            continue
        rank = 2 * bool(_CONVOLVES.search(layer.kind)) + bool(layer.weights)
        for name in layer.onnx:
            if name not in types or rank > types[name][0]:
                types[name] = rank, dtype
    return {name: types[name][1] if name in types else "unknown" for name in convolutions}


def _inspected(layer: Mapping[str, Any]) -> Layer:
    name = str(layer.get("Name", ""))
    # where the metadata is missing, TensorRT's own names say what was fused: "conv1 + relu"
    onnx = _ONNX.findall(str(layer.get("Metadata", ""))) or name.split(" + ")
    weights = layer.get("Weights")
    stated = _word(weights.get("Type", "")) if isinstance(weights, dict) and weights.get("Count", 1) else None
    constants = layer.get("Constants", [])
    return Layer(
        name=name,
        kind=str(layer.get("LayerType", "")),
        inputs=tuple(_tensor(tensor) for tensor in layer.get("Inputs", [])),
        outputs=tuple(_tensor(tensor) for tensor in layer.get("Outputs", [])),
        onnx=tuple(onnx),
        weights=stated or _weights((tuple(c.get("Dimensions", ())), _tensor(c)) for c in constants),
    )


def _tensor(tensor: Mapping[str, Any]) -> str:
    text = str(tensor.get("Format/Datatype") or tensor.get("Datatype") or "")
    return _word(text) or "unknown"


def _word(text: str) -> str | None:
    match = _WORD.search(text)
    return _WORDS.get(match[0].lower(), match[0]) if match else None


def _weights(constants: Iterable[tuple[tuple[int, ...], str]]) -> str | None:
    """The type of the constant `[outputs,inputs,kh,kw]`; a bias is `[1,outputs,1,1]`."""
    return next((dtype for shape, dtype in constants if len(shape) == 4 and shape[0] > 1), None)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)
