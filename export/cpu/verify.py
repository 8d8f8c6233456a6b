"""Hold the form for CPUs against the network, in double precision, at the size that it ships for.

It is run beside the plain graphs on the same pixels, so that what Winograd's points cost in rounding is known: a few
times what a direct convolution loses. Labels must be the network's but where its two best logits are closer than twice
what the logits are off, and those must be within the tolerance that every graph has.

What is looked into are graphs made alike that return their logits, too; the shipped ones must give the same labels to
the bit.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.agreement import TIE, Agreement, TorchReference, flat_pixels
from export.atrous import as_rewritten
from export.ends import FRAMES, LABELS, LOGITS
from export.execute import Session
from export.frames import sample_frames
from export.fullsize import Pixels, largest_tensor, pixels_to_look_at, sampled_logits
from export.graphs import Graphs, graphs_from_network
from export.reference import logits_from_torch, normalised
from splitmerge.errors import VerificationError
from training.networks.base import SegmentationNet, pad_to_stride
from training.networks.smp import SMP

__all__ = ["MAX_NUMBERS", "CpuReport", "verify_cpu"]

MAX_NUMBERS = 20_000_000
"""In the largest tensor that is computed in double precision, of which PyTorch's convolutions make nine copies."""


@dataclass(frozen=True)
class CpuReport:
    """How the form for CPUs compared, against what, and how far its logits and the plain graphs' are off.

    `float64_error` and `plain_float64_error` are of the largest logit, against the network in double precision; None
    where that is too large to run and `against` are the plain graphs.
    """

    comparison: Agreement
    against: str
    parts: tuple[str, ...]
    float64_error: float | None
    plain_float64_error: float | None


@dataclass(frozen=True)
class _Run:
    labels: list[NDArray[np.uint8]]
    logits: list[NDArray[Any]]


def verify_cpu(network: SegmentationNet, graphs: Graphs) -> CpuReport:
    """Raises VerificationError where labels or logits of `graphs.cpu` are not the network's."""
    level = graphs.cut.level if graphs.cut else 0
    looked_into = graphs_from_network(network, graphs.contract, level, logits=True, rewriting=graphs.rewriting)
    frames = sample_frames(1, *graphs.contract.size)
    pixels = pixels_to_look_at(graphs, 2)
    plain = _run(looked_into, dict(looked_into.parts), frames, pixels)
    tiled = _run(looked_into, {**looked_into.parts, **looked_into.cpu}, frames, pixels)
    shipped = _run(graphs, {**graphs.parts, **graphs.cpu}, frames, pixels)
    if any((one != other).any() for one, other in zip(tiled.labels, shipped.labels, strict=True)):
        raise VerificationError(
            "The graphs for CPUs give other labels with their logits than without: this is a fault of the export, "
            "please report it."
        )
    expected = _in_double(network, graphs, frames, pixels)
    against = "PyTorch in float64" if expected else "the plain graphs"
    logits = flat_pixels(expected or plain.logits)
    error = float(np.abs(flat_pixels(tiled.logits) - logits).max())
    reference = TorchReference(logits.astype(np.float32), graphs.contract.size, tie=max(TIE, 2 * error))
    labels = np.concatenate([part.reshape(1, 1, -1) for part in tiled.labels], axis=2)
    where = " and ".join(str(one.batch) for one in pixels)
    name = f"for CPUs, full size, split batches {where}" if graphs.cut else "for CPUs, full size, every pixel"
    row = reference.compare(name, labels, flat_pixels(tiled.logits))
    if not row.holds:
        raise VerificationError(
            f"The graphs for CPUs do not agree with {against}: {row.wrong_labels} of {row.pixels} pixels have another "
            f"label, and the logits are off by {row.relative_error:.1e} of the largest. Nothing was written; this is a "
            "fault of the export, not of the checkpoint: leave out --target cpu, and please report it."
        )
    return CpuReport(
        row,
        against,
        tuple(graphs.cpu),
        _of_largest(tiled, logits) if expected else None,
        _of_largest(plain, logits) if expected else None,
    )


def _run(graphs: Graphs, parts: dict[str, ir.Model], frames: NDArray[np.uint8], pixels: list[Pixels]) -> _Run:
    """Labels and (where the graphs return them) logits of the pixels, cropped to the frame."""
    if graphs.cut is None:
        made = Session(parts["model"], []).run({FRAMES: frames})
        return _Run([made[LABELS]], [made[LOGITS]] if LOGITS in made else [])
    features = Session(parts["stem"], []).run({FRAMES: frames})
    trunk = Session(parts["trunk"], [])
    height, width = graphs.contract.size
    run = _Run([], [])
    for one in pixels:
        made = trunk.run({name: value[one.batch, None] for name, value in features.items() if name != LOGITS})
        rows = len(range(one.row, height, one.stride))
        columns = len(range(one.column, width, one.stride))
        run.labels.append(made[LABELS][:, :rows, :columns])
        if LOGITS in made:
            run.logits.append(made[LOGITS][:, :, :rows, :columns])
    return run


def _in_double(
    network: SegmentationNet, graphs: Graphs, frames: NDArray[np.uint8], pixels: list[Pixels]
) -> list[NDArray[Any]]:
    """The network's logits at the pixels; empty where they are too many to compute."""
    if largest_tensor(graphs) > MAX_NUMBERS * (graphs.cut.batches if graphs.cut else 1):
        return []
    double = copy.deepcopy(network).double()
    x = normalised(frames, graphs.contract).double()
    if graphs.cut is None:
        return [logits_from_torch(as_rewritten(double, graphs.rewriting), x)]
    if not isinstance(double, SMP):
        return []
    padded = pad_to_stride(x, double.stride)
    height, width = graphs.contract.size
    return [
        sampled_logits(double, padded, one)[
            :, :, : len(range(one.row, height, one.stride)), : len(range(one.column, width, one.stride))
        ]
        for one in pixels
    ]


def _of_largest(run: _Run, logits: NDArray[Any]) -> float:
    return float(f"{np.abs(flat_pixels(run.logits) - logits).max() / np.abs(logits).max():.3g}")
