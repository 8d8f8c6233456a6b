"""The paper's claim on `streets`: Split-Merge Pooling against its strided baselines, same width, data, crops and steps.

    python -m benchmarks.claim --runs runs/smp18 runs/fcn32s-18 runs/fcn8s-18 --json build/claim.json

reads the `best.safetensors` of trainings made by `splitmerge train` and scores them on full validation images: IoU per
class, the mean of all classes and of the small and thin ones (SMP paper, Tables 2 and 4). The images are others than
those that chose the best checkpoint. SMP networks are scored at
full density, and with every second and fourth row and column computed, other pixels taking the nearest computed one.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.machine import machine
from splitmerge.errors import SplitmergeError
from splitmerge.files import write_json
from splitmerge.labels import CITYSCAPES, THIN_CLASSES
from splitmerge.options import height_and_width
from training.checkpoint import Checkpoint, load_checkpoint
from training.data import open_dataset
from training.evaluate import normalise, predict
from training.metrics import confusion_matrix, iou
from training.networks.smp import SMP


@dataclass(frozen=True)
class Row:
    """Scores of one network at one density."""

    model: str
    stride: int
    steps: int
    iou: NDArray[np.float64]

    @property
    def miou(self) -> float:
        return float(np.nanmean(self.iou))

    @property
    def thin(self) -> float:
        thin = [entry.name in THIN_CLASSES for entry in CITYSCAPES]
        return float(np.nanmean(self.iou[thin]))


def score(checkpoint: Checkpoint, images: int, size: tuple[int, int]) -> list[Row]:
    """Score a checkpoint on streets' validation images at each density that its network has."""
    strides = (1, 2, 4) if isinstance(checkpoint.model, SMP) else (1,)
    classes = len(checkpoint.classes)
    totals = {stride: np.zeros((classes, classes), np.int64) for stride in strides}
    for frame, truth in tqdm(open_dataset("streets", size, images, seed=1), desc=checkpoint.name, disable=None):
        image = normalise(torch.from_numpy(np.array(frame))[None], checkpoint.mean, checkpoint.std)
        for stride in strides:
            totals[stride] += confusion_matrix(predict(checkpoint.model, image, stride), truth, classes)
    steps = int(checkpoint.notes.get("step", 0))
    return [Row(checkpoint.name, stride, steps, iou(total)) for stride, total in totals.items()]


def table(rows: list[Row]) -> str:
    """A Markdown table: a column per network and density, a row per class."""
    heads = [row.model + (f", stride {row.stride}" if row.stride > 1 else "") for row in rows]
    lines = ["| IoU in % | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(rows)]
    lines.append("| **mean of 19 classes** | " + " | ".join(f"**{100 * row.miou:.1f}**" for row in rows) + " |")
    lines.append("| **mean of thin classes** | " + " | ".join(f"**{100 * row.thin:.1f}**" for row in rows) + " |")
    for index, entry in enumerate(CITYSCAPES):
        thin = " (thin)" if entry.name in THIN_CLASSES else ""
        lines.append(f"| {entry.name}{thin} | " + " | ".join(f"{100 * row.iou[index]:.1f}" for row in rows) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of `splitmerge train`")
    parser.add_argument("--images", type=int, default=100, help="validation images")
    parser.add_argument("--size", type=height_and_width, default=(256, 512), help="HxW of a validation image")
    parser.add_argument("--json", type=Path, help="write the scores here too")
    arguments = parser.parse_args()
    try:
        checkpoints = [load_checkpoint(run / "best.safetensors") for run in arguments.runs]
        rows = [row for checkpoint in checkpoints for row in score(checkpoint, arguments.images, arguments.size)]
    except SplitmergeError as error:
        print(f"claim: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows))
    if arguments.json:
        names = [entry.name for entry in CITYSCAPES]
        scores = [
            {"model": row.model, "stride": row.stride, "steps": row.steps, "miou": row.miou, "thin": row.thin}
            | {
                "iou": {
                    name: None if np.isnan(value) else float(value) for name, value in zip(names, row.iou, strict=True)
                }
            }
            for row in rows
        ]
        write_json(arguments.json, {**machine(), "images": arguments.images, "size": arguments.size, "rows": scores})
    return 0


if __name__ == "__main__":
    sys.exit(main())
