"""Rewrite a graph for CPUs: where 3x3 convolutions are worth it as matrix products, values are kept tiled.

A convolution enters the tiled layout where arithmetic says that it gains, and what stands between such convolutions
(ReLU, sums, 1x1 convolutions, splits, argmax) stays in it; every other operator is handed the plain layout. The graph
still has its poolings as nodes, numbered.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from export.cpu.convolution import Convolution, convolve, pointwise
from export.cpu.emitter import Emitter
from export.cpu.tiling import Tiling, tiling_of
from export.layouts import POINTWISE, Layout
from export.nodes import drops_channels, is_constant, is_split, numpy_of, only_reader, sizes, take_over, window_of

__all__ = ["gains", "is_pointwise_convolution", "is_worth_tiling", "tile_convolutions"]

_PICOSECONDS_DIRECT, _PICOSECONDS_TILED, _PICOSECONDS_MOVED = 171, 46, 2000
"""For one pixel: of a 3x3 convolution for each pair of channels in and out, directly and as matrix products, and of
moving each channel through the four small matrices. Fitted to one core of an AMD EPYC (Zen 4) with AVX-512, 16 to 512
channels and tiles of 4 x 4; it is their ratio that decides. With tiles of 4 x 8 those of 32 channels are still
no faster tiled."""

_IN_WHOLE_GRAPHS = 2.5
"""How many times as fast matrix products must be there. A whole graph has one context of all cores, which share out a
stock convolution better than small matrices (two cores, 128x256: a dilated FCN in split form takes 55 ms with width 64,
in tiles of 4 x 4 37, and 5.4 with width 16, tiled 8.6; FCN8s, where nothing is split, is slower tiled with either)."""


@dataclass(frozen=True)
class _Fused:
    """A convolution, the sum that follows it, if one does, and whether ReLU is the last step. `point` is the 1x1
    convolution that makes what is added, where nobody else reads that.
    """

    convolution: ir.Node
    added: ir.Node | None
    relu: bool
    point: ir.Node | None = None

    @property
    def shortcut(self) -> ir.Value | None:
        """What is added, as the sum reads it now: a value that was handed out in the plain layout is another since."""
        if self.added is None:
            return None
        return next(value for value in self.added.inputs if value is not self.convolution.outputs[0])


@dataclass(frozen=True)
class _Tiled:
    value: ir.Value
    tiling: Tiling


def gains(channels_in: int, channels_out: int, least: float = 1) -> bool:
    """Whether a 3x3 convolution of so many channels is at least so many times as fast as matrix products."""
    pairs = channels_in * channels_out
    moved = _PICOSECONDS_MOVED * (channels_in + channels_out)
    return _PICOSECONDS_DIRECT * pairs > least * (_PICOSECONDS_TILED * pairs + moved)


def tile_convolutions(model: ir.Model, layouts: Mapping[ir.Value, Layout], whole: bool = False) -> int:
    """Rewrite the graph and return how many 3x3 convolutions became matrix products.

    `layouts` are those of its values from before its poolings were fused. Of a `whole` graph, which is not shared out
    by split batches, they are those on split batches and with many channels.
    """
    tiler = _Tiler(model.graph, layouts, whole)
    for node in list(model.graph):
        tiler.rewrite(node)
    tiler.leave_all(model.graph.outputs)
    common.RemoveUnusedNodesPass()(model)
    return tiler.count


class _Tiler:
    def __init__(self, graph: ir.Graph, layouts: Mapping[ir.Value, Layout], whole: bool) -> None:
        self.count = 0
        self._graph = graph
        self._layouts = dict(layouts)
        self._tiled: dict[ir.Value, _Tiled] = {}
        self._plain: set[ir.Value] = set()  # of the tiled ones, those that are there in the plain layout, too
        self._fused, self._absorbed = _fusions(graph, lambda node: is_worth_tiling(node, layouts, whole))

    def rewrite(self, node: ir.Node) -> None:
        if node in self._absorbed:
            return  # done with the node that ends its fusion
        fused = self._fused.get(node)
        if fused is not None:
            self._convolve(node, fused)
        elif not self._keep_tiled(node):
            self.leave_all((value for value in node.inputs if value is not None), node)

    def leave_all(self, values: Iterable[ir.Value], before: ir.Node | None = None) -> list[ir.Value]:
        """The plain values of those given, made here where they are only tiled so far: before a node, or at the end."""
        return [self._left(value, before) if value in self._tiled else value for value in list(values)]

    def _left(self, value: ir.Value, before: ir.Node | None) -> ir.Value:
        if value in self._plain:
            return value
        producer, tiled = value.producer(), self._tiled.pop(value)
        assert producer is not None
        emit = Emitter(f"{producer.name}.plain")
        plain = tiled.tiling.leave(emit, tiled.value)
        emit.insert_before(self._graph, before)
        take_over(value, plain)
        self._layouts[plain] = self._layouts[value]
        self._tiled[plain] = tiled
        self._plain.add(plain)
        return plain

    def _convolve(self, node: ir.Node, fused: _Fused) -> None:
        emit = Emitter(f"{fused.convolution.name}.tiled")
        source = self._entered(fused.convolution.inputs[0], node)
        expected = source.tiling.with_channels(sizes(node.outputs[0])[1])
        shortcut = self._shortcut(emit, fused, node, expected) if fused.added else None
        weights, bias = _weights(fused.convolution)
        out = convolve(emit, source.value, source.tiling, Convolution(weights, bias, fused.relu), shortcut)
        self._keep(node, emit, out, source.tiling.with_channels(len(weights)))
        self.count += 1

    def _shortcut(self, emit: Emitter, fused: _Fused, before: ir.Node, tiling: Tiling) -> ir.Value:
        """What is added, in this tiling: computed here where a 1x1 convolution of its own makes it."""
        if fused.point is None:
            return self._entered(fused.shortcut, before, tiling).value
        weights, bias = _weights(fused.point)
        source = self._entered(fused.point.inputs[0], before, tiling.with_channels(weights.shape[1]))
        return pointwise(emit, source.value, Convolution(weights, bias))

    def _keep_tiled(self, node: ir.Node) -> bool:
        """Do in the tiled layout what can be done there; False where the node needs plain values."""
        known = [value for value in node.inputs if value is not None and value in self._tiled]
        if not known or node.domain not in ("", "splitmerge"):
            return False
        source = self._tiled[known[0]]
        emit = Emitter(f"{node.name}.tiled")
        tiling = source.tiling
        if is_split(node):
            if not tiling.can_split(window_of(node)):
                return False
            out, tiling = tiling.split(emit, source.value, window_of(node))
        elif node.op_type in POINTWISE and all(value is None or is_constant(value) for value in node.inputs[1:]):
            out = emit(node.op_type, source.value, *node.inputs[1:])
            made = emit.nodes[-1]
            for attribute in node.attributes.values():
                made.attributes.add(attribute)
        elif node.op_type == "Add" and _alike(node):
            values = [self._entered(value, node, tiling).value for value in node.inputs]
            out = emit("Add", *values)
        elif is_pointwise_convolution(node):
            weights, bias = _weights(node)
            out = pointwise(emit, source.value, Convolution(weights, bias))
            tiling = tiling.with_channels(len(weights))
        elif node.op_type == "ArgMax" and tiling.channels is not None and drops_channels(node):
            out = emit(
                "ArgMax",
                source.value,
                axis=3,
                keepdims=0,
                select_last_index=node.attributes.get_int("select_last_index", 0),
            )
            tiling = tiling.with_channels(None)
        else:
            return False
        self._keep(node, emit, out, tiling)
        return True

    def _entered(self, value: ir.Value | None, before: ir.Node, tiling: Tiling | None = None) -> _Tiled:
        """The value in the tiled layout (in `tiling`, if one is given), made here where it is not."""
        assert value is not None
        if tiling is not None and value in self._tiled and self._tiled[value].tiling != tiling:
            (value,) = self.leave_all(
                [value], before
            )  # with other strips, or splits that were fused otherwise and number batches so
            del self._tiled[value]
        if value not in self._tiled:
            _, channels, height, width = sizes(value)
            assert channels is not None and height is not None and width is not None
            into = tiling or tiling_of(channels, height, width, self._layouts[value])
            emit = Emitter(f"{value.name}.to_tiles.{before.name}")  # it may enter again, in another tiling
            tiled = into.enter(emit, value)
            emit.insert_before(self._graph, before)
            self._tiled[value] = _Tiled(tiled, into)
            self._plain.add(value)
        return self._tiled[value]

    def _keep(self, node: ir.Node, emit: Emitter, out: ir.Value, tiling: Tiling) -> None:
        emit.insert_before(self._graph, node)
        self._tiled[node.outputs[0]] = _Tiled(out, tiling)


def _fusions(graph: ir.Graph, tiled: Callable[[ir.Node], bool]) -> tuple[dict[ir.Node, _Fused], set[ir.Node]]:
    """The convolutions to be tiled by the last node of what is computed with them, and the nodes that are not last."""
    fused: dict[ir.Node, _Fused] = {}
    absorbed: set[ir.Node] = set()
    for node in graph:
        if node in absorbed or not tiled(node):
            continue
        last, added, point = node, only_reader(node.outputs[0]), None
        taken = added in fused or added in absorbed  # by the other value's convolution
        if added is None or added.op_type != "Add" or taken or not _alike(added):
            added = None
        else:
            absorbed.add(last)
            last = added
            point = _point_of_sum(added, node)
            if point is not None:
                absorbed.add(point)
        relu = only_reader(last.outputs[0])
        if relu is not None and relu.op_type == "Relu":
            absorbed.add(last)
            last = relu
        fused[last] = _Fused(node, added, last.op_type == "Relu", point)
        absorbed.discard(last)
    return fused, absorbed


def _point_of_sum(added: ir.Node, convolution: ir.Node) -> ir.Node | None:
    """The 1x1 convolution whose result is the other summand and nothing else."""
    (other,) = (value for value in added.inputs if value is not convolution.outputs[0])
    producer = other.producer() if other is not None and only_reader(other) is added else None
    return producer if producer is not None and is_pointwise_convolution(producer) else None


def is_worth_tiling(node: ir.Node, layouts: Mapping[ir.Value, Layout], whole: bool = False) -> bool:
    """Whether the node is a 3x3 convolution that is faster as matrix products."""
    if not _is_plain_convolution(node, 3) or None in sizes(node.outputs[0])[1:]:
        return False
    out, into = numpy_of(node.inputs[1]).shape[:2]
    return gains(into, out, _IN_WHOLE_GRAPHS) and layouts[node.outputs[0]] != () if whole else gains(into, out)


def is_pointwise_convolution(node: ir.Node) -> bool:
    """Whether it is a 1x1 convolution of one group with constant weights that keeps height and width."""
    return _is_plain_convolution(node, 1)


def _is_plain_convolution(node: ir.Node, size: int) -> bool:
    """Whether it is a float convolution of one group and `size` taps each way that keeps height and width."""
    if node.op_type != "Conv" or node.domain:
        return False
    value, *constants = node.inputs
    if value is None or is_constant(value) or not all(v is not None and is_constant(v) for v in constants):
        return False
    weights = constants[0]
    assert weights is not None
    if weights.dtype != ir.DataType.FLOAT or sizes(weights)[2:] != (size, size):
        return False
    ints = {
        name: node.attributes[name].as_ints() for name in ("strides", "dilations", "pads") if name in node.attributes
    }
    auto = node.attributes.get("auto_pad")
    return (
        node.attributes.get_int("group", 1) == 1
        and (auto is None or auto.as_string() == "NOTSET")
        and set(ints.get("strides", [1])) == {1}
        and set(ints.get("dilations", [1])) == {1}
        and set(ints.get("pads", [0])) == {size // 2}
    )


def _alike(node: ir.Node) -> bool:
    """Whether two computed maps of the same shape, and not one map twice, are added."""
    one, other = node.inputs
    if one is None or other is None or one is other or is_constant(one) or is_constant(other):
        return False
    return len(sizes(one)) == 4 and sizes(one) == sizes(other)


def _weights(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return numpy_of(node.inputs[1]).astype(np.float32), None if bias is None else numpy_of(bias).astype(np.float32)
