"""Run exported graphs in ONNX Runtime and look inside them. Values looked into are at the frame's padded size."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from export.ends import FRAMES, LABELS
from export.graphs import Graphs
from export.layouts import grid
from export.nodes import Window
from splitmerge.errors import VerificationError

__all__ = ["GraphRun", "Session", "dense_from_batches", "run_batches", "run_model", "run_parts"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class GraphRun:
    """Labels uint8 `[N,H,W]`, logits float32 `[N,classes,H,W]`, and by their nodes' names the values looked into."""

    labels: NDArray[np.uint8]
    logits: Array
    values: dict[str, Array]


def run_model(graphs: Graphs, frames: NDArray[np.uint8], layers: bool = False) -> GraphRun:
    """Run the whole graph on frames uint8 `[N,H,W,3]`. With `layers` the convolutions' outputs come along."""
    model = graphs.parts["model"]
    names = _looked_into(model, layers)
    outputs = Session(model, names).run({FRAMES: frames})
    dense = {name: dense_from_batches(outputs[name], grid(graphs.layouts[name])) for name in names}
    return _result(graphs, outputs[LABELS][:, None], dense, names[0])


def run_parts(graphs: Graphs, frames: NDArray[np.uint8], layers: bool = False) -> GraphRun:
    """Run the stem, then the trunk on its split batches, a few at a time and in random order, and interleave."""
    stem, trunk, cut = graphs.parts["stem"], graphs.parts["trunk"], graphs.cut
    assert cut is not None
    in_stem = _looked_into(stem, True) if layers else []
    made = Session(stem, in_stem).run({FRAMES: frames})
    dense = {name: dense_from_batches(made[name], grid(graphs.layouts[name])) for name in in_stem}
    in_trunk = _looked_into(trunk, layers)
    session = Session(trunk, in_trunk)
    features = {value.name or "": made[value.name or ""] for value in trunk.graph.inputs}
    by_batch: list[dict[str, Array]] = [{} for _ in range(len(frames) * cut.batches)]
    order = np.random.default_rng(0).permutation(len(by_batch))
    for some in np.array_split(order, min(len(order), 64)):
        outputs = session.run({name: value[some] for name, value in features.items()})
        within = {name: grid(graphs.layouts[name][cut.level :]) for name in in_trunk}
        parts = {name: dense_from_batches(outputs[name], window) for name, window in within.items()}
        parts[LABELS] = outputs[LABELS][:, None]
        for position, batch in enumerate(some):
            by_batch[batch] = {name: value[position] for name, value in parts.items()}
    window = cut.rows, cut.columns
    for name in [LABELS, *in_trunk]:
        dense[name] = dense_from_batches(np.stack([batch[name] for batch in by_batch]), window)
    return _result(graphs, dense.pop(LABELS), dense, in_trunk[0])


def run_batches(graphs: Graphs, frame: NDArray[np.uint8], batches: Sequence[int]) -> Iterator[GraphRun]:
    """Run the stem on one frame `[1,H,W,3]` and the trunk on single split batches of it, as a stream would.

    Each gives the pixels `[k::rows, l::columns]` of the frame: labels `[1,h,w]` and logits `[1,classes,h,w]`.
    """
    stem, trunk, cut = graphs.parts["stem"], graphs.parts["trunk"], graphs.cut
    assert cut is not None
    features = Session(stem, []).run({FRAMES: frame})
    (scores,) = _looked_into(trunk, False)
    session = Session(trunk, [scores])
    height, width = graphs.contract.size
    for batch in batches:
        outputs = session.run({name: value[batch, None] for name, value in features.items()})
        logits = dense_from_batches(outputs[scores], grid(graphs.layouts[scores][cut.level :]))
        row, column = divmod(batch, cut.columns)
        h, w = len(range(row, height, cut.rows)), len(range(column, width, cut.columns))
        yield GraphRun(outputs[LABELS][:, :h, :w], logits[:, :, :h, :w], {})


def dense_from_batches(batches: NDArray[Any], window: Window) -> NDArray[Any]:
    """Interleave split batches in pixel order: batch (n,k,l) of `[N*r*c,C,h,w]` becomes `[n, :, k::r, l::c]`."""
    rows, columns = window
    count, channels, height, width = batches.shape
    dense = np.empty((count // (rows * columns), channels, height * rows, width * columns), batches.dtype)
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        dense[:, :, row::rows, column::columns] = batches[index :: rows * columns]
    return dense


class Session:
    """ONNX Runtime on one graph, which also returns the values that are looked into."""

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        opened = model.clone()
        values = {node.name: node.outputs[0] for node in opened.graph}
        opened.graph.outputs.extend(values[name] for name in names if not values[name].is_graph_output())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # shapes of graphs cut at 32x32 make it warn about buffers it cannot reuse
        data = ir.to_proto(opened).SerializeToString()
        self._part = model.graph.name
        with self._complaints():
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._names = {name: values[name].name or "" for name in names}
        self._names |= {value.name or "": value.name or "" for value in model.graph.outputs}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs, by name; what is looked into by its node's name."""
        with self._complaints():
            outputs = self._session.run(list(self._names.values()), dict(inputs))
        return dict(zip(self._names, outputs, strict=True))

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # ONNX Runtime's own errors have no common base
            words = " ".join(str(error).split())
            raise VerificationError(
                f"ONNX Runtime cannot run the {self._part} graph ({words}): this is a fault of the export, please "
                "report it."
            ) from None


def _looked_into(model: ir.Model, layers: bool) -> list[str]:
    """Names of nodes: the one whose output argmax reads (where there is one), then the convolutions if asked for."""
    names = []
    for node in model.graph:
        if node.op_type == "ArgMax" and node.inputs[0] is not None:
            producer = node.inputs[0].producer()
            assert producer is not None
            names.append(producer.name or "")
    if layers:
        names += [node.name or "" for node in model.graph if node.op_type == "Conv" and node.name not in names]
    return names


def _result(graphs: Graphs, labels: NDArray[Any], dense: dict[str, Array], scores: str) -> GraphRun:
    height, width = graphs.contract.size
    return GraphRun(labels[:, 0, :height, :width], dense[scores][:, :, :height, :width], dense)
