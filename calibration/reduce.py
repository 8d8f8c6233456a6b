"""From a package with float32 graphs to one that also holds float16, verified."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.agreement import LabelAgreement, Labeller, label_agreement
from calibration.half import carried, half_graph
from calibration.package import add_precision
from calibration.peaks import Extent, outside_float16, unfit_weights, watched
from splitmerge.errors import InputError, VerificationError
from splitmerge.package import Package

__all__ = ["LEAST_AGREEMENT", "HalfReport", "add_half", "kept_words"]

LEAST_AGREEMENT = 0.9995
"""Of the labels; the shipped network keeps 0.99995 in float16 at 256x512, and 0.9998 at 64x128."""


@dataclass(frozen=True)
class HalfReport:
    """How float16 did: labels, what stayed float32 and why, and what the values were, by layer and all together."""

    agreement: LabelAgreement
    kept: Mapping[str, str]
    extents: Mapping[str, Extent]

    @property
    def overall(self) -> Extent:
        """Of all layers."""
        return sum(self.extents.values(), Extent())

    def facts(self) -> dict[str, Any]:
        """As JSON: what the package keeps. `underflow` has the five layers that lose most."""
        overall = self.overall
        worst = sorted(self.extents, key=lambda name: -self.extents[name].lost)[:5]
        return {
            **asdict(self.agreement),
            "label_agreement": self.agreement.share,
            "largest_value": float(f"{overall.largest:.3g}"),
            "subnormal": overall.subnormal,
            "flushed_to_zero": overall.flushed,
            "of_values": overall.nonzero,
            "underflow": {name: self.extents[name].lost for name in worst},
            "kept_float32": dict(sorted(self.kept.items())),
        }


def add_half(
    package: Package,
    frames: Iterable[NDArray[np.uint8]],
    keep: Collection[str] = (),
    least_agreement: float = LEAST_AGREEMENT,
    say: Callable[[str], None] = lambda line: None,
) -> HalfReport:
    """Make the package's fp16 graphs, hold their labels against fp32's on `frames` uint8 `[H,W,3]`, and add them.

    The convolutions named in `keep` stay float32, and so does what float16 cannot hold: weights, and values as large
    (or small) as `frames` show them, which are then gone through a second time. Raises InputError for names that no
    graph has and for NaN or infinity in float32, VerificationError where less than `least_agreement` (0..1) of the
    labels are float32's; the package is as it was then.
    """
    full = {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    known = {node.name for model in full.values() for node in model.graph.node if node.op_type == "Conv"}
    for name in keep:
        if name not in known:
            raise InputError(f"{package.folder} has no convolution {name!r} to keep in float32.")
    kept = dict.fromkeys(keep, "as asked for")
    for model in full.values():
        kept |= {name: reason for name, reason in unfit_weights(model).items() if name not in kept}
    half = {part: half_graph(model, _own(model, kept)) for part, model in full.items()}
    cut = package.manifest.cut
    reference = Labeller(full, cut, {part: watched(model) for part, model in full.items()})
    agreement = label_agreement(reference, Labeller(half, cut), frames)
    outside = outside_float16(reference.extents)
    unfit = outside | {name: reason for name, reason in kept.items() if name not in keep}
    if unfit:
        say(f"in float32, because float16 does not hold it: {kept_words(unfit)}")
    if outside:
        wide = carried(full.values(), outside)
        half = {part: half_graph(model, _own(model, kept), wide) for part, model in full.items()}
        agreement = label_agreement(Labeller(full, cut), Labeller(half, cut), frames)
    if not agreement.share >= least_agreement:
        raise VerificationError(
            f"In fp16 only {agreement.share:.4%} of the labels are those of fp32 ({agreement.differing} of "
            f"{agreement.pixels} pixels differ, {agreement.images} images) and {least_agreement:.4%} are asked for: "
            "nothing was written; keep layers in float32 with --keep, or allow more with --min-agreement."
        )
    report = HalfReport(agreement, outside | kept, reference.extents)
    add_precision(package, "fp16", half, report.facts())
    return report


def kept_words(kept: Mapping[str, str]) -> str:
    """Names and reasons, for a person."""
    return ", ".join(f"{name} ({reason})" for name, reason in kept.items())


def _own(model: onnx.ModelProto, names: Collection[str]) -> set[str]:
    return {node.name for node in model.graph.node} & set(names)
