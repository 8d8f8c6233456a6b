"""Holds the type that each convolution of a plan computes in against the type that the graph asks for.

Networks are strongly typed and still a plan may compute in others: on compute capability 7.5 TensorRT-RTX 1.7 turns
int8 convolutions into float, and a float32 convolution between casts from and to float16 it computes in float16. A plan
that is asked for in float16 and comes out float32 is slow and looks right, so it counts as a failed build.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from splitmerge.errors import EngineError

__all__ = ["CONSTRAINTS", "asked_types", "check_types"]

CONSTRAINTS = ("obey", "prefer")
"""trtexec's words: a plan in other types than the graph's fails, or is kept with a note."""

_PRECISIONS = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}
_SHOWN = 3


def asked_types(trt: Any, network: Any) -> dict[str, str]:
    """In which type each convolution of a parsed network shall compute, by its name in the ONNX file.

    The type of its input; Int8 where the input is dequantised from int8. The parser has the types from the file.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    quantised = {
        layer.get_output(0).name
        for layer in layers
        if layer.type == trt.LayerType.DEQUANTIZE and layer.get_input(0).dtype == trt.DataType.INT8
    }
    pixels = {layer.name: layer.get_input(0) for layer in layers if layer.type == trt.LayerType.CONVOLUTION}
    return {name: "Int8" if tensor.name in quantised else _word(tensor) for name, tensor in pixels.items()}


def check_types(
    file: str, precision: str | None, asked: Mapping[str, str], found: Mapping[str, str], constraints: str = "obey"
) -> list[str]:
    """Notes on convolutions of a plan that compute in another type than asked, or are not known.

    `precision` is what the graph is called. Raises EngineError where the graph is not of that precision, or, under
    `obey`, where the plan is not as the graph.
    """
    _check_graph(file, precision, asked)
    wrong = {
        name: f"{found[name]} instead of {asked[name]}" for name in asked if found[name] not in ("unknown", asked[name])
    }
    notes = [
        _listed(words, [name for name in wrong if wrong[name] == words]) for words in dict.fromkeys(wrong.values())
    ]
    if notes and constraints == "obey":
        raise EngineError(
            f"Of the {len(asked)} convolutions of {file} the plan computes {len(wrong)} in another type than the graph "
            f"asks for, {'; '.join(notes)}: build another precision for this GPU, or keep such a plan with "
            "--precision-constraints prefer."
        )
    unknown = [name for name in asked if found[name] == "unknown"]
    return notes + ([_listed("in a type that the plan does not tell", unknown)] if unknown else [])


def _check_graph(file: str, precision: str | None, asked: Mapping[str, str]) -> None:
    wanted = _PRECISIONS.get(precision or "")
    if wanted is None or not asked:
        return
    types = Counter(asked.values())
    if wanted not in types or (wanted == "Float" and len(types) > 1):
        have = ", ".join(f"{count} {kind}" for kind, count in types.items())
        raise EngineError(
            f"{file} is called {precision} and its convolutions are {have}: make the package's {precision} graphs "
            "again."
        )


def _listed(words: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {words} ({', '.join(names[:_SHOWN])}{more})"


def _word(tensor: Any) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1].title()
