"""From a package with float32 graphs to one that also holds a reduced precision, verified."""

from collections.abc import Collection, Iterable
from dataclasses import asdict

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.agreement import LabelAgreement, Labeller, label_agreement
from calibration.half import LARGEST, half_graph
from calibration.package import add_precision
from calibration.peaks import watched
from splitmerge.errors import InputError, VerificationError
from splitmerge.package import Package

__all__ = ["LEAST_AGREEMENT", "add_half"]

LEAST_AGREEMENT = 0.999
"""Of the labels; the shipped network keeps 0.9998 in float16."""


def add_half(
    package: Package,
    frames: Iterable[NDArray[np.uint8]],
    keep: Collection[str] = (),
    least_agreement: float = LEAST_AGREEMENT,
) -> LabelAgreement:
    """Make the package's fp16 graphs, hold their labels against fp32's on `frames` uint8 `[H,W,3]`, and add them.

    The convolutions named in `keep` stay float32. Raises InputError for weights that float16 cannot hold and names that
    no graph has, VerificationError where less than `least_agreement` (0..1) of the labels are float32's or a value is
    too large for float16; the package is as it was then.
    """
    full = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    known = {node.name for model in full.values() for node in model.graph.node if node.op_type == "Conv"}
    for name in keep:
        if name not in known:
            raise InputError(f"{package.folder} has no convolution {name!r} to keep in float32.")
    half = {part: half_graph(model, _own(model, keep)) for part, model in full.items()}
    cut = package.manifest.cut
    reference = Labeller(full, cut, {part: watched(model) for part, model in half.items()})
    agreement = label_agreement(reference, Labeller(half, cut), frames)
    name, peak = max(reference.peaks.items(), key=lambda item: item[1])
    if not peak <= LARGEST:
        raise VerificationError(
            f"The layer {name} gives values up to {peak:.3g} and float16 holds up to {LARGEST:.0f}: nothing was "
            "written; keep it and those that read it in float32 with --keep, or train with weight decay."
        )
    if agreement.share < least_agreement:
        raise VerificationError(
            f"In fp16 only {agreement.share:.4%} of the labels are those of fp32 ({agreement.differing} of "
            f"{agreement.pixels} pixels differ, {agreement.images} images) and {least_agreement:.4%} are asked for: "
            "nothing was written; keep layers in float32 with --keep, or allow more with --min-agreement."
        )
    facts = {
        **asdict(agreement),
        "label_agreement": agreement.share,
        "largest_value": float(f"{peak:.3g}"),
        "kept_float32": sorted(keep),
    }
    add_precision(package, "fp16", half, facts)
    return agreement


def _own(model: onnx.ModelProto, names: Collection[str]) -> set[str]:
    return {node.name for node in model.graph.node} & set(names)
