"""The graphs of a network, from trace to finished, in the order that the rewrites need."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir
from onnx_ir.passes import common
from torch import nn

from export.commute import fuse_poolings, hoist
from export.cpu.labels import label_bands
from export.cpu.nested import tiled_depth_first
from export.cpu.stem import stem_by_batches
from export.cpu.transposes import part_transposes
from export.cut import cut_at, split_levels
from export.dilated_form import dilate_split
from export.ends import add_frames_input, add_labels, finish_labels
from export.layouts import Layout, check_merged, layouts_of
from export.lower import MAX_RANK, lower_poolings
from export.nodes import sizes
from export.output_stride import lower_output_stride
from export.simplify import fix_reshape_sizes, fix_resize_sizes, fold_batch_norm
from export.split_form import is_dilated, split_dilated
from export.trace import trace
from splitmerge import __version__
from splitmerge.errors import InputError
from splitmerge.package import Cut, InputContract

__all__ = [
    "AS_IT_IS",
    "MOST_BYTES",
    "Graphs",
    "Rewriting",
    "contract_for",
    "graphs_from_network",
    "graphs_from_whole",
    "whole_from_network",
]

MOST_BYTES = 2**31 - 2**20
"""Weights that fit a file of ONNX, which has less than 2 GiB: a message of protobuf."""


@dataclass(frozen=True)
class Rewriting:
    """What becomes of a network on the way: nothing, `form` "split" or "dilated", and a lower output stride.

    `target` "cpu" adds a form of its graphs for CPUs, which computes the same.
    """

    form: str = "own"
    output_stride: int | None = None
    target: str = "any"

    @property
    def keeps_network(self) -> bool:
        """Whether the graph has the network's own layers."""
        return self.form == "own" and self.output_stride is None


AS_IT_IS = Rewriting()


@dataclass(frozen=True)
class Graphs:
    """Finished graphs by part (`model`, and `stem` and `trunk` where there is a cut).

    `layouts` has the windows that the output of each node of `model` is split by, under the node's name. `cpu` has the
    parts that have a form for CPUs (`export.cpu`), in that form, where it was asked for.
    """

    parts: Mapping[str, ir.Model]
    cut: Cut | None
    contract: InputContract
    layouts: Mapping[str, Layout]
    rewriting: Rewriting = AS_IT_IS
    cpu: Mapping[str, ir.Model] = field(default_factory=dict)


def contract_for(
    size: tuple[int, int], stride: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> InputContract:
    """The input contract of frames of (height, width). Raises InputError for frames smaller than one stride."""
    height, width = size
    if height < stride or width < stride:
        raise InputError(
            f"Frames of {height}x{width} are smaller than the {stride}x{stride} pixels that become one in the network: "
            f"choose a size of {stride}x{stride} or more."
        )
    return InputContract(height, width, height + -height % stride, width + -width % stride, mean, std)


def graphs_from_network(
    network: nn.Module,
    contract: InputContract,
    cut_level: int | None = None,
    logits: bool = False,
    rewriting: Rewriting = AS_IT_IS,
) -> Graphs:
    """Export a network in evaluation mode. Level 0, or a network without splits, gives the whole graph alone.

    By default that is 2, or 0 for a rewritten network that cannot be cut there.

    Raises InputError for a network that cannot be exported or cut there, CheckpointError for weights that are not
    finite.
    """
    whole = whole_from_network(network, contract, logits, rewriting)
    if cut_level is None:
        cut_level = 2 if rewriting.keeps_network or _can_be_cut(whole, 2) else 0
    graphs = replace(graphs_from_whole(whole, contract, cut_level), rewriting=rewriting)
    if rewriting.target != "cpu":
        return graphs
    return replace(graphs, cpu=_cpu_parts(whole, contract, cut_level if graphs.cut else 0))


def _cpu_parts(whole: ir.Model, contract: InputContract, cut_level: int) -> dict[str, ir.Model]:
    """The parts that run, in their form for CPUs; without those in which nothing would change."""
    if cut_level:
        halves = cut_at(whole, cut_level)
        parts = {"stem": halves.stem, "trunk": halves.trunk}
    else:
        parts = {"model": whole.clone()}
    in_one_piece = not _can_be_cut(whole, cut_level or 1)
    changed = {}
    for name, part in parts.items():
        if name == "stem" and stem_by_batches(part):
            count = 1
        else:
            part, count = tiled_depth_first(part, in_one_piece)
        if count + label_bands(part):
            part_transposes(part.graph)
            _end(name, part, contract)
            _finish(part, name, max_rank=None)
            changed[name] = part
    return changed


def _can_be_cut(whole: ir.Model, level: int) -> bool:
    try:
        cut_at(whole, level)
    except InputError:
        return False
    return True


def whole_from_network(
    network: nn.Module,
    contract: InputContract,
    logits: bool = False,
    rewriting: Rewriting = AS_IT_IS,
) -> ir.Model:
    """The graph from frames to labels (still int32, at the padded size), with poolings as nodes that can be cut at."""
    model = trace(network, contract.padded_height, contract.padded_width)
    fold_batch_norm(model)
    fix_resize_sizes(model)
    fix_reshape_sizes(model)
    check_merged(model.graph)
    _check_form(model, rewriting)
    if rewriting.output_stride:
        lower_output_stride(model, rewriting.output_stride)
    add_frames_input(model, contract)
    add_labels(model, logits)
    if rewriting.form != "own":
        {"split": split_dilated, "dilated": dilate_split}[rewriting.form](model)
    hoist(model)
    return model


def _check_form(model: ir.Model, rewriting: Rewriting) -> None:
    """Raise InputError where there is nothing to rewrite."""
    split, dilated = split_levels(model) > 0, is_dilated(model.graph)
    if rewriting.output_stride and split:
        raise InputError(
            "The network is split already and has a logit for every pixel: --output-stride is for networks that "
            "upsample their logits."
        )
    if rewriting.form != "own" and not (split or dilated or rewriting.output_stride):
        raise InputError(
            f"The network has neither dilated convolutions nor split pooling, so it has no {rewriting.form} form: "
            "leave out --form."
        )


def graphs_from_whole(whole: ir.Model, contract: InputContract, cut_level: int) -> Graphs:
    """Cut, fuse, lower, finish and check. `whole` stays as it is."""
    values = layouts_of(whole.graph)
    layouts = {node.name or "": values[node.outputs[0]] for node in whole.graph}
    if cut_level < 0:
        raise InputError(f"There is no split level {cut_level}: choose 0 for one graph, or 1 and more for a cut.")
    cut = None
    parts = {"model": whole.clone()}
    if cut_level and split_levels(whole):
        halves = cut_at(whole, cut_level)
        cut = halves.cut
        parts |= {"stem": halves.stem, "trunk": halves.trunk}
    for name, part in parts.items():
        fuse_poolings(part)
        lower_poolings(part)
        _end(name, part, contract)
        _finish(part, name)
    return Graphs(parts, cut, contract, layouts)


def _end(name: str, part: ir.Model, contract: InputContract) -> None:
    """End the graphs that give labels. A trunk's split batches are cropped by whoever puts them together."""
    if name == "trunk":
        finish_labels(part, "n", None)
    elif name == "model":
        padded = contract.padded_height, contract.padded_width
        finish_labels(part, "N", contract.size if padded != contract.size else None)


def _finish(model: ir.Model, name: str, max_rank: int | None = MAX_RANK) -> None:
    """Name the file's maker, infer all shapes strictly and check the graph. A failure here is a mistake in export, but
    for InputError, which says that its weights are too many for a file."""
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights >= MOST_BYTES:
        raise InputError(
            f"The {name} has {weights / 1e9:.2f} GB of weights and a file of ONNX holds {MOST_BYTES / 1e9:.2f}: export "
            "a narrower network, or without --target cpu, whose graphs have more weights."
        )
    model.graph.name = name
    model.producer_name, model.producer_version = "splitmerge", __version__
    ends = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            if value not in ends:
                value.shape = None
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    _order_constants(model.graph)
    common.ShapeInferencePass(strict_mode=True)(model)
    common.CheckerPass(full_check=True)(model)
    for node in model.graph:
        for value in node.outputs:
            _forget_made_up_names(value)
        assert not node.domain, f"{node.name} is left in the private domain {node.domain}"
        assert max_rank is None or all(len(sizes(value)) <= max_rank for value in node.outputs), node.name


def _order_constants(graph: ir.Graph) -> None:
    """Store constants in the order of their use: `ir.convenience.extract` collects them in a set, never twice alike."""
    nodes = ir.traversal.RecursiveGraphIterator(graph)
    read = dict.fromkeys(value for node in nodes for value in node.inputs)
    own = set(graph.initializers.values())
    graph.initializers.clear()
    for value in read:
        if value in own:
            graph.register_initializer(value)


def _forget_made_up_names(value: ir.Value) -> None:
    """Shape inference calls free dimensions unk__0, unk__1, ...: leave those without a name."""
    assert value.shape is not None
    value.shape = ir.Shape([None if str(size).startswith("unk__") else size for size in value.shape])
