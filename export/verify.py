"""Hold exported graphs against PyTorch, and PyTorch against the dilated network.

The rule: every pixel has PyTorch's label, unless its two best logits lie so close that rounding decides between them
(a near tie), and no logit is further off than such a tie is wide. On disagreement the first convolution whose output
differs is named.

Graphs for more than `MAX_PIXELS` are not run, since the activations of all split batches together need gigabytes. A
twin is exported for smaller frames with the same padding, and verified; that it differs in sizes only is checked.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.agreement import TOLERANCE, Comparison, Reference
from export.execute import run_model, run_parts
from export.frames import sample_frames
from export.graphs import Graphs, contract_for, graphs_from_network
from export.reference import convolutions_from_torch, dense_from_nested, logits_from_torch, normalised
from splitmerge.errors import VerificationError
from splitmerge.package import InputContract
from training.models import SegmentationNet

__all__ = ["MAX_PIXELS", "Report", "verify", "verify_graphs"]

MAX_PIXELS = 64 * 128
_FRAMES = 2


@dataclass(frozen=True)
class Report:
    """What was compared, on how many frames of which size (height, width)."""

    size: tuple[int, int]
    frames: int
    pixels: int
    near_ties: int
    logits_scale: float
    tolerance: float
    comparisons: tuple[Comparison, ...]


def verify(network: SegmentationNet, graphs: Graphs) -> Report:
    """Verify graphs of any size. Raises VerificationError where they disagree with the network."""
    contract = graphs.contract
    if contract.padded_height * contract.padded_width <= MAX_PIXELS:
        return verify_graphs(network, graphs)
    level = graphs.cut.level if graphs.cut else 0
    logits = len(graphs.parts["model"].graph.outputs) > 1
    twin = graphs_from_network(network, _smaller(contract, network.stride), level, logits)
    for part, model in graphs.parts.items():
        _check_twins(part, model, twin.parts[part])
    return verify_graphs(network, twin)


def verify_graphs(network: SegmentationNet, graphs: Graphs) -> Report:
    """Run graphs and network on the same frames. Raises VerificationError where they disagree."""
    contract = graphs.contract
    frames = sample_frames(_FRAMES, *contract.size)
    x = normalised(frames, contract)
    reference = Reference(logits_from_torch(network, x))
    comparisons = []
    if hasattr(network, "dilated_logits"):
        dilated = logits_from_torch(network, x, "dilated_logits")
        comparisons.append(reference.compare("dilated network", dilated.argmax(1).astype(np.uint8), dilated))
        _accept(comparisons[-1], contract, "its own dilated form")
    runs = {"model": run_model} | ({"stem + trunk": run_parts} if graphs.cut else {})
    for name, run in runs.items():
        result = run(graphs, frames)
        comparison = reference.compare(name, result.labels, result.logits)
        if not comparison.holds:
            layers = run(graphs, frames, layers=True).values
            _accept(comparison, contract, "PyTorch", _first_difference(network, graphs, frames, layers))
        comparisons.append(comparison)
    near_ties, pixels = int(reference.near_ties.sum()), reference.labels.size
    return Report(contract.size, _FRAMES, pixels, near_ties, reference.scale, TOLERANCE, tuple(comparisons))


def _accept(comparison: Comparison, contract: InputContract, expected: str, layer: str = "") -> None:
    if comparison.holds:
        return
    where = f" The first layer that differs is {layer}." if layer else ""
    raise VerificationError(
        f"The {comparison.compared} does not agree with {expected} on frames of {contract.height}x{contract.width}: "
        f"{comparison.wrong_labels} pixels have another label and the logits are off by "
        f"{comparison.relative_error:.1e} of their scale, where none and {TOLERANCE:.0e} are allowed.{where} "
        "Nothing was written; this is a fault of the export, not of the checkpoint: please report it."
    )


def _first_difference(
    network: SegmentationNet, graphs: Graphs, frames: NDArray[np.uint8], found: dict[str, NDArray[np.float32]]
) -> str:
    """Name of the first convolution, in the graph's order, whose output is not PyTorch's."""
    contract = graphs.contract
    padding = contract.padded_height - contract.height, contract.padded_width - contract.width
    expected = convolutions_from_torch(network, normalised(frames, contract), padding)
    for node in graphs.parts["model"].graph:
        name = node.name or ""
        if node.op_type != "Conv" or name not in expected or name not in found:
            continue
        right = dense_from_nested(expected.pop(name), graphs.layouts[name])
        if not np.abs(found[name] - right).max() <= TOLERANCE * np.abs(right).max():  # also where one is NaN
            return name
    return "behind the last convolution"


def _smaller(contract: InputContract, stride: int) -> InputContract:
    """Frames within MAX_PIXELS that are padded by as much."""
    below, right = contract.padded_height - contract.height, contract.padded_width - contract.width
    height, width = min(contract.padded_height, 64), min(contract.padded_width, 128)
    return contract_for((height - below, width - right), stride, contract.mean, contract.std)


def _check_twins(part: str, one: ir.Model, other: ir.Model) -> None:
    """Raise VerificationError unless two graphs have the same operators and weights and differ in sizes only."""
    if _without_sizes(one) != _without_sizes(other):
        raise VerificationError(
            f"The {part} graph changes with the size of the frames in more than its sizes, so that checking it at a "
            f"small size proves nothing: export for at most {MAX_PIXELS} pixels, or report this."
        )


def _without_sizes(model: ir.Model) -> list[tuple[object, ...]]:
    """Every operator with its attributes and weights, without its int64 shapes, paddings and crops."""
    return [
        (
            node.op_type,
            node.name,
            sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()),
            [_weight(value) for value in node.inputs],
        )
        for node in model.graph
    ]


def _weight(value: ir.Value | None) -> object:
    if value is None or value.const_value is None:
        return value.name if value else None
    if value.dtype == ir.DataType.INT64:
        return None
    return value.const_value.tobytes()
