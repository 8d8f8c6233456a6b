"""Hold exported graphs against PyTorch, and PyTorch against the dilated network.

The rule: every pixel has PyTorch's label, unless its two best logits lie so close that rounding decides between them
(a near tie) and it has the label of one of the two; and no logit is further off than rounding takes it. On disagreement
the first convolution whose output differs is named.

Graphs for more than `MAX_PIXELS` are not run on every pixel, since the activations of all split batches together need
gigabytes. A twin is exported for smaller frames with the same padding, and verified; that it differs in sizes only is
checked. What depends on the sizes is then run as it ships, on as many pixels as are cheap (`export.fullsize`); where
that is every pixel, the twin may differ, as split forms do with what their windows divide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.agreement import LOGITS_TOLERANCE, TIE, Agreement, TorchReference
from export.atrous import as_rewritten
from export.cpu.verify import CpuReport, verify_cpu
from export.execute import run_model, run_parts
from export.frames import sample_frames
from export.fullsize import compare_full_size
from export.graphs import Graphs, contract_for, graphs_from_network
from export.reference import convolutions_from_torch, dense_from_nested, logits_from_torch, normalised
from splitmerge.errors import VerificationError
from splitmerge.package import InputContract
from training.networks.base import SegmentationNet

__all__ = ["MAX_PIXELS", "Report", "verify", "verify_graphs"]

MAX_PIXELS = 64 * 128
_FRAMES = 2


@dataclass(frozen=True)
class Report:
    """What was compared, by which rule, and in words what was run at full size; `cpu` has the form for CPUs."""

    comparisons: tuple[Agreement, ...]
    full_size: str
    cpu: CpuReport | None = None
    tie: float = TIE
    logits_tolerance: float = LOGITS_TOLERANCE


def verify(network: SegmentationNet, graphs: Graphs) -> Report:
    """Verify graphs of any size. Raises VerificationError where they disagree with the network."""
    report = _verify_plain(network, graphs)
    return replace(report, cpu=verify_cpu(network, graphs)) if graphs.cpu else report


def _verify_plain(network: SegmentationNet, graphs: Graphs) -> Report:
    contract = graphs.contract
    if contract.padded_height * contract.padded_width <= MAX_PIXELS:
        return Report(verify_graphs(network, graphs), "all graphs on every pixel")
    level = graphs.cut.level if graphs.cut else 0
    logits = len(graphs.parts["model"].graph.outputs) > 1
    rewriting = replace(graphs.rewriting, target="any")
    twin = graphs_from_network(network, _smaller(contract, network.stride), level, logits, rewriting)
    padded_alike = graphs.rewriting.form != "split"
    if padded_alike:
        _check_twins(graphs, twin)
    comparisons = verify_graphs(network, twin)
    full = compare_full_size(network, graphs)
    for row in full.comparisons:
        _accept(row, "PyTorch")
    if not padded_alike and not full.every_pixel:
        _check_twins(graphs, twin)
    return Report((*comparisons, *full.comparisons), full.summary)


def verify_graphs(network: SegmentationNet, graphs: Graphs) -> tuple[Agreement, ...]:
    """Run graphs and network on every pixel of the same frames. Raises VerificationError where they disagree."""
    contract = graphs.contract
    frames = sample_frames(_FRAMES, *contract.size)
    x = normalised(frames, contract)
    reference = TorchReference(logits_from_torch(as_rewritten(network, graphs.rewriting), x), contract.size)
    rows = []
    if hasattr(network, "dilated_logits"):
        dilated = logits_from_torch(network, x, "dilated_logits")
        rows.append(reference.compare("dilated network", dilated.argmax(1).astype(np.uint8), dilated))
        _accept(rows[-1], "its own dilated form")
    runs = {"model": run_model} | ({"stem + trunk": run_parts} if graphs.cut else {})
    for name, run in runs.items():
        result = run(graphs, frames)
        row = reference.compare(name, result.labels, result.logits)
        if not row.holds and graphs.rewriting.keeps_network:  # else PyTorch's layers are in another form
            layers = run(graphs, frames, layers=True).values
            _accept(row, "PyTorch", _first_difference(network, graphs, frames, layers))
        _accept(row, "PyTorch")
        rows.append(row)
    return tuple(rows)


def _accept(row: Agreement, expected: str, layer: str = "") -> None:
    if row.holds:
        return
    where = f" The first layer that differs is {layer}." if layer else ""
    height, width = row.size
    raise VerificationError(
        f"The {row.compared} does not agree with {expected} on frames of {height}x{width}: {row.wrong_labels} pixels "
        f"have another label for logits up to {row.widest_change:.1e} apart (up to {TIE:.0e} is a near tie), and the "
        f"logits, up to {row.logits_scale:.3g}, are off by {row.relative_error:.1e} of that (up to "
        f"{LOGITS_TOLERANCE:.0e} is rounding).{where} Nothing was written; this is a fault of the export, not of the "
        "checkpoint: please report it."
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
        if not np.abs(found[name] - right).max() <= LOGITS_TOLERANCE * np.abs(right).max():  # also where one is NaN
            return name
    return "behind the last convolution"


def _smaller(contract: InputContract, stride: int) -> InputContract:
    """Frames that are padded by as much, within MAX_PIXELS unless the network's stride asks for more."""
    height = _smaller_side(contract.height, contract.padded_height, 64, stride)
    width = _smaller_side(contract.width, contract.padded_width, 128, stride)
    return contract_for((height, width), stride, contract.mean, contract.std)


def _smaller_side(size: int, padded: int, wanted: int, stride: int) -> int:
    """A frame's side, so that with the same padding it comes to `wanted`, or to what is no smaller than one window."""
    padding = padded - size
    least = stride if not padding else 2 * stride
    return min(padded, max(wanted, least)) - padding


def _check_twins(graphs: Graphs, twin: Graphs) -> None:
    """Raise VerificationError unless two exports have the same operators and weights and differ in sizes only."""
    for part, model in graphs.parts.items():
        nodes, others = list(model.graph), list(twin.parts[part].graph)
        if len(nodes) != len(others) or not all(map(_twins, nodes, others)):
            raise VerificationError(
                f"The {part} graph changes with the size of the frames in more than its sizes, so that checking it at "
                f"a small size proves nothing: export for at most {MAX_PIXELS} pixels, or report this."
            )


def _twins(one: ir.Node, other: ir.Node) -> bool:
    """Whether two nodes are the same but for their int64 shapes, paddings and crops, and what a resizing resizes to."""
    if (one.op_type, one.name, _attributes(one)) != (other.op_type, other.name, _attributes(other)):
        return False
    if one.op_type == "Resize":
        return _same_inputs(one.inputs[:1], other.inputs[:1])
    return _same_inputs(one.inputs, other.inputs)


def _attributes(node: ir.Node) -> list[tuple[str, str]]:
    return sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())


def _same_inputs(one: Sequence[ir.Value | None], other: Sequence[ir.Value | None]) -> bool:
    return len(one) == len(other) and all(map(_same_input, one, other))


def _same_input(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether two inputs have the same name, or as constants the same numbers.

    Constants of different shapes are no weights, since both graphs have the same: they were made from the frame's size,
    as which pixels a cell of a pyramid pooling averages is.
    """
    if one is None or other is None or one.const_value is None or other.const_value is None:
        return (one and one.name) == (other and other.name)
    if one.dtype == other.dtype == ir.DataType.INT64 or one.const_value.shape != other.const_value.shape:
        return True
    return one.dtype == other.dtype and one.const_value.tobytes() == other.const_value.tobytes()
