"""How often graphs of another precision give the label that the float32 graphs give."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from calibration.peaks import Extent, extents_of, with_extents
from export.ends import FRAMES, LABELS
from splitmerge.package import Cut

__all__ = ["LabelAgreement", "Labeller", "label_agreement"]

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelAgreement:
    """`differing` of `pixels` labels are others than float32's, over `images` frames."""

    images: int
    pixels: int
    differing: int

    @property
    def share(self) -> float:
        """Labels that agree, 0..1."""
        return 1 - self.differing / self.pixels


class Labeller:
    """Runs graphs by part on the CPU: stem and trunk, a split batch at a time, or the model where there is no cut.

    `extents` is what the values in `watch` by part, which must be float32, were so far; InputError is raised where one
    is not finite.

    ONNX Runtime computes float16 in float32 on a CPU and leaves out some of the roundings between operators: the
    shipped network's logits were off by 2.9e-3 (root mean square) with it and by 3.8e-3 with each operator rounded by
    itself. Compilers for GPUs fuse operators and leave roundings out, too.
    """

    def __init__(
        self, graphs: Mapping[str, onnx.ModelProto], cut: Cut | None, watch: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._cut = cut
        parts = ("stem", "trunk") if cut else ("model",)
        self._watch = {part: tuple((watch or {}).get(part, ())) for part in parts}
        self._sessions = {part: _session(with_extents(graphs[part], self._watch[part])) for part in parts}
        self.extents: dict[str, Extent] = {}

    def __call__(self, frame: NDArray[np.uint8], stride: int = 1) -> Labels:
        """Labels uint8 `[H,W]` of a frame uint8 `[H,W,3]`, blue-green-red; `[::stride, ::stride]` of them.

        `stride` divides the cut's rows and columns; the split batches that it leaves out are not computed.
        """
        height, width, _ = frame.shape
        if self._cut is None:
            labels = self._run("model", {FRAMES: frame[None]})[LABELS][0]
            return np.asarray(labels[::stride, ::stride], np.uint8)
        rows, columns = self._cut.rows // stride, self._cut.columns // stride
        features = self._run("stem", {FRAMES: frame[None]})
        names = [value.name for value in self._sessions["trunk"].get_inputs()]
        parts = [
            self._run("trunk", {name: features[name][batch, None] for name in names})[LABELS][0]
            for batch in range(self._cut.batches)
            if batch // self._cut.columns % stride == 0 and batch % self._cut.columns % stride == 0
        ]
        whole = np.empty((parts[0].shape[0] * rows, parts[0].shape[1] * columns), np.uint8)
        for batch, labels in enumerate(parts):
            row, column = divmod(batch, columns)
            whole[row::rows, column::columns] = labels
        return whole[: -(-height // stride), : -(-width // stride)]

    def _run(self, part: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        session = self._sessions[part]
        names = [value.name for value in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, dict(feeds)), strict=True))
        for name, extent in extents_of(outputs, self._watch[part]).items():
            self.extents[name] = self.extents.get(name, Extent()) + extent
        return outputs


def label_agreement(
    one: Callable[[NDArray[np.uint8]], Labels],
    other: Callable[[NDArray[np.uint8]], Labels],
    frames: Iterable[NDArray[np.uint8]],
) -> LabelAgreement:
    """Compare on frames uint8 `[H,W,3]` of the package's size."""
    images = pixels = differing = 0
    for frame in frames:
        labels = one(frame)
        images, pixels = images + 1, pixels + labels.size
        differing += int((labels != other(frame)).sum())
    return LabelAgreement(images, pixels, differing)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
