"""Which tensors of a package's graphs are looked at, and which of them hold the same values in another order.

Split, merge and every other reshape or transpose move values and change none, so a tensor behind them has the
statistics of the one before: each is collected once, under the name of the first of them; the features that stem and
trunk share under the name that they have there.
"""

from collections.abc import Iterable, Iterator, Mapping

import onnx

from splitmerge.errors import InputError
from splitmerge.package import Cut

__all__ = ["Taps", "taps_of"]

_MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_QUANTISED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Taps:
    """What to collect: `by_part[part]`, names of tensors, each in one part only; and for every tensor of any of the
    graphs that holds the same values as a collected one, that one's name in `same_as` (the collected themselves, too).
    """

    def __init__(self, by_part: Mapping[str, tuple[str, ...]], same_as: Mapping[str, str]) -> None:
        self.by_part, self.same_as = by_part, same_as

    @property
    def names(self) -> tuple[str, ...]:
        """All collected tensors, in the order of computation."""
        return tuple(name for names in self.by_part.values() for name in names)


def taps_of(models: Mapping[str, onnx.ModelProto], cut: Cut | None, tensors: Iterable[str] | None = None) -> Taps:
    """Taps for `tensors`, by default the inputs of every convolution and of every addition of two activations.

    `models` by part; with a cut, what `model` computes is collected in stem and trunk. Raises InputError for a tensor
    that none of the graphs has.
    """
    origins = {part: _origins(model.graph) for part, model in models.items()}
    run = ("stem", "trunk") if cut else ("model",)
    features = [value.name for value in models["trunk"].graph.input] if cut else []
    for feature in features:  # collected where the trunk reads them: the stem has them already, in another order
        before = origins["stem"][feature]
        for part in ("stem", "model"):
            origins[part] = {name: feature if o == before else o for name, o in origins[part].items()}
    wanted: dict[str, set[str]] = {part: set() for part in run}
    for part, name in _defaults(models, run) if tensors is None else _parts_of(tensors, origins, run):
        origin = origins[part][name]
        wanted["trunk" if origin in features else part].add(origin)
    by_part = {part: tuple(n for n in dict.fromkeys(origins[part].values()) if n in wanted[part]) for part in run}
    collected = {name for names in by_part.values() for name in names}
    order = [*(part for part in models if part not in run), *run]
    same_as = {name: origin for part in order for name, origin in origins[part].items() if origin in collected}
    return Taps(by_part, same_as)


def _origins(graph: onnx.GraphProto) -> dict[str, str]:
    """For each input and each value computed, the tensor that its values come from unchanged."""
    origins = {value.name: value.name for value in graph.input}
    for node in graph.node:
        for output in node.output:
            moved = node.op_type in _MOVES and node.input[0] in origins
            origins[output] = origins[node.input[0]] if moved else output
    return origins


def _defaults(models: Mapping[str, onnx.ModelProto], run: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Parts and tensors that are quantised where every convolution and addition is."""
    for part in run:
        graph = models[part].graph
        computed = {value.name for value in graph.input} | {name for node in graph.node for name in node.output}
        for node in graph.node:
            if node.op_type in _QUANTISED and node.input[0] in computed:
                yield part, node.input[0]
            elif node.op_type == "Add" and all(name in computed for name in node.input):
                yield from ((part, name) for name in node.input)


def _parts_of(
    tensors: Iterable[str], origins: Mapping[str, Mapping[str, str]], run: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """For each tensor the part that computes it, or the tensor that it comes from where only the whole graph has it."""
    for name in tensors:
        for here in (name, *(origins[part][name] for part in origins if name in origins[part])):
            part = next((part for part in run if here in origins[part]), None)
            if part is not None:
                yield part, here
                break
        else:
            raise InputError(
                f"None of the package's graphs computes a tensor {name!r} that ranges could be collected of: look at "
                "the graphs' names with Netron."
            )
