"""From a recipe to graphs: which method gave the thresholds, what was done to the weights, which layers stay float."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx

from calibration.cache import Calibration
from calibration.peaks import unfit_weights
from calibration.placement import convolutions, quantised_graph
from calibration.quantise_count import multiply_adds
from calibration.weights import corrected_biases, equalised

__all__ = ["Models", "Quantiser", "Recipe"]

Models = Mapping[str, onnx.ModelProto]


@dataclass(frozen=True)
class Recipe:
    """How to quantise. `left_out` names the convolutions that are not int8."""

    method: str
    corrected: bool = False
    equalised: bool = False
    left_out: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """For tables: the method and what was done to the weights."""
        words = [self.method, *(["equalised"] if self.equalised else []), *(["bias"] if self.corrected else [])]
        return " + ".join(words)


class Quantiser:
    """Makes graphs of a package's float32 `models` (by part). `ranges(models)` calibrates equalised ones when asked."""

    def __init__(self, models: Models, calibration: Calibration, ranges: Callable[[Models], Calibration]) -> None:
        self.models, self._ranges = models, ranges
        self._bases = {False: (models, calibration)}
        self.layers = convolutions(models["model"])
        self.work = {name: work for name, work in multiply_adds(models["model"]).items() if name in self.layers}
        self._all_work = sum(multiply_adds(models["model"]).values())

    def share(self, left_out: Collection[str]) -> float:
        """The share of the multiply-adds, 0..1, that are int8 without these layers."""
        return sum(work for name, work in self.work.items() if name not in left_out) / self._all_work

    def graphs(
        self, recipe: Recipe, rest: str, whole: bool = False, wide: Collection[str] = ()
    ) -> dict[str, onnx.ModelProto]:
        """The graphs that running needs, and with `whole` the uncut one, too. `rest` is "fp16" or "fp32"; with fp16 the
        values named in `wide` stay float32, and so do layers left out whose weights float16 cannot hold.
        """
        models, calibration = self._base(recipe.equalised)
        parts = ["stem", "trunk"] if "trunk" in models else ["model"]
        parts += ["model"] if whole and "trunk" in models else []
        thresholds = calibration.by_tensor(recipe.method)
        made = {}
        ends: list[str] = []
        for part in sorted(parts, reverse=True):  # the trunk first: it says which features are int8
            layers = [name for name in convolutions(models[part]) if name not in recipe.left_out]
            model = models[part]
            if recipe.corrected:
                model = corrected_biases(model, calibration.channel_means(), layers)
            if part == "trunk":
                ends = _int8_inputs(quantised_graph(model, thresholds, layers, "fp32"))
            keep = set(unfit_weights(model)) - set(layers)
            part_ends = ends if part != "model" else ()
            made[part] = quantised_graph(model, thresholds, layers, rest, keep, part_ends, wide)
        return {part: made[part] for part in parts}

    def floats(self, recipe: Recipe) -> Models:
        """The float32 graphs that a recipe quantises."""
        return self._base(recipe.equalised)[0]

    def _base(self, is_equalised: bool) -> tuple[Models, Calibration]:
        if is_equalised not in self._bases:
            channels = self._bases[False][1].channel_ranges()
            models = {part: equalised(model, channels) for part, model in self.models.items()}
            self._bases[True] = models, self._ranges(models)
        return self._bases[is_equalised]


def _int8_inputs(trunk: onnx.ModelProto) -> list[str]:
    """The inputs that a quantised trunk reads as int8 only: they may come as int8 from the stem."""
    readers = {
        value.name: [node.op_type for node in trunk.graph.node if value.name in node.input]
        for value in trunk.graph.input
    }
    return [name for name, kinds in readers.items() if kinds and set(kinds) == {"QuantizeLinear"}]
