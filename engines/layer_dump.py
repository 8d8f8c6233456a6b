"""Reads the layer dump that TensorRT prints while it builds.

Without a GPU there is no engine inspector; a VERBOSE logger and detailed profiling print the same facts, one line a
layer. They tell what precision each layer really has, which no flag does.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Layer", "convolution_types", "layers_from_log"]

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>(?:.*?\})??)\], "
    r"(?:Constants: \[(?:.*?\})??\], )?Outputs: \[(?P<outputs>(?:.*?\})??)\], (?P<rest>.*)$",
    re.MULTILINE,
)
_TYPE = re.compile(r"Datatype: (\w+)")
_ONNX = re.compile(r"\[ONNX Layer: (.*?)\]")


@dataclass(frozen=True)
class Layer:
    """One layer of a plan. Types are TensorRT's words (Float, Half, Int8, Int32, UInt8), one per tensor.

    `onnx` names the operators that were fused into it.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    onnx: tuple[str, ...]


def layers_from_log(messages: Iterable[str]) -> list[Layer]:
    """The layers in the logger's messages, in order of execution."""
    return [
        Layer(
            name=match["name"],
            kind=match["kind"],
            inputs=tuple(_TYPE.findall(match["inputs"])),
            outputs=tuple(_TYPE.findall(match["outputs"])),
            onnx=tuple(_ONNX.findall(match["rest"])),
        )
        for message in messages
        for match in _LAYER.finditer(message)
    ]


def convolution_types(layers: Iterable[Layer], convolutions: Iterable[str]) -> dict[str, int]:
    """How many of the named convolutions read their pixels as each type; `unknown` are those not in the dump."""
    reads = {name: layer.inputs[0] for layer in layers if layer.inputs for name in layer.onnx}
    return dict(Counter(reads.get(name, "unknown") for name in convolutions))
