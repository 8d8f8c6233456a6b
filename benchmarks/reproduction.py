"""The SMP paper's Tables 2 and 4 on `streets`: Split-Merge Pooling against strided baselines, over several seeds.

    for seed in 0 1 2; do for model in smp34 smp18 fcn8s-18 fcn32s-18; do
        splitmerge train --model $model --seed $seed --steps 3000 --out runs/$model-$seed; done; done
    python -m benchmarks.reproduction --runs runs --json build/reproduction.json --picture build/reproduction.png

scores the last checkpoint of each finished run in the folder (nothing is chosen by a score) on validation images that
no training has seen: IoU per class, the mean of all and of the small and thin ones, and of each the mean and the range
over the seeds. Split-Merge Pooling is scored at full density and with one pixel of every window of 2x2 to 32x32
computed, others taking the nearest computed one. What a run scores is kept in --cache, so that an interrupted call goes
on.

Exit code 0 where Table 2's order holds in the mean and in every seed, otherwise 1.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.machine import machine
from benchmarks.reproduction_picture import draw
from benchmarks.reproduction_table import Network, density_table, rows_of, table, verdict
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, read_json, write_json
from splitmerge.labels import CITYSCAPES
from splitmerge.options import height_and_width, positive_integer
from training.checkpoint import Checkpoint, load_checkpoint
from training.data import Dataset
from training.evaluate import normalise, predict
from training.metrics import confusion_matrix, iou
from training.networks.smp import SMP
from training.reduction import strides_of
from training.streets import RENDERER_VERSION, Streets, cached

__all__ = ["Run", "confusions_of", "finished_runs", "main", "networks_of"]

IMAGE_SEED = 1
"""Trainings validate on the images of seed 0."""
_ALIKE = ("width", "data", "crop", "size", "images", "batch", "steps")

Confusions = dict[int, NDArray[np.int64]]


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    checkpoint: Checkpoint

    @property
    def model(self) -> str:
        return self.checkpoint.name

    @property
    def seed(self) -> int:
        return int(self.checkpoint.notes["seed"])


def finished_runs(folder: Path, file: str) -> tuple[list[Run], list[str]]:
    """The trainings in a folder's folders that have taken all their steps, and words for each that has not.

    Raises InputError where there is none, where two have one network and seed, and where they were not trained alike.
    """
    runs, left_out = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not (path / "config.json").is_file():
            continue
        last = path / "last.safetensors"
        checkpoint = load_checkpoint(last) if last.is_file() else None
        if checkpoint is None or checkpoint.notes.get("step") != checkpoint.notes.get("steps"):
            left_out.append(f"{path.name} is left out: its training has not taken all its steps yet.")
            continue
        runs.append(Run(path, checkpoint if file == last.name else load_checkpoint(path / file)))
    if not runs:
        raise InputError(f"{folder} holds no finished training: make some with `splitmerge train --out {folder}/NAME`.")
    for index, run in enumerate(runs):
        for other in runs[:index]:
            if (run.model, run.seed) == (other.model, other.seed):
                raise InputError(f"{run.folder} and {other.folder} are both {run.model} of seed {run.seed}: keep one.")
        for name in _ALIKE:
            first, own = (each.checkpoint.notes.get(name) for each in (runs[0], run))
            if first != own:
                raise InputError(
                    f"{run.folder} was trained with {name} {own}, and {runs[0].folder} with {first}: only trainings "
                    "that differ in network and seed alone can be compared; put others in a folder of their own."
                )
    return runs, left_out


def confusions_of(checkpoint: Checkpoint, images: Dataset, progress: str | None = None) -> Confusions:
    """Confusion matrices over labelled images, by stride: a Split-Merge Pooling network's strides, 1 of any other."""
    model, classes = checkpoint.model, len(checkpoint.classes)
    strides = dict.fromkeys(strides_of(model.windows)) if isinstance(model, SMP) else {1: None}
    totals = {stride: np.zeros((classes, classes), np.int64) for stride in sorted(strides, reverse=True)}
    for index in tqdm(range(len(images)), desc=progress, unit="image", disable=None if progress else True):
        frame, truth = images[index]
        image = normalise(torch.from_numpy(np.array(frame))[None], checkpoint.mean, checkpoint.std)
        for stride, total in totals.items():
            total += confusion_matrix(predict(model, image, stride), truth, classes)
    return totals


def networks_of(runs: Sequence[Run], images: Streets, drawn: Path, cache: Path) -> list[Network]:
    """The scores of each network's runs, computed where `cache` does not hold them. `drawn` keeps the images."""
    found: dict[str, dict[int, dict[int, NDArray[np.float64]]]] = {}
    for run in runs:
        key = f"{run.checkpoint.sha256[:16]}-{images.key}"
        path = cache / f"{run.model}-{run.seed}-{key}.json"
        if not path.is_file():
            scored = confusions_of(run.checkpoint, cached(images, drawn), run.folder.name)
            write_json(path, {str(stride): counts.tolist() for stride, counts in scored.items()})
        counts = {int(stride): np.array(values, np.int64) for stride, values in read_json(path).items()}
        found.setdefault(run.model, {})[run.seed] = {stride: iou(each) for stride, each in counts.items()}
    return [Network(model, scores) for model, scores in found.items()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder that holds the folders of `splitmerge train`")
    parser.add_argument("--file", default="last.safetensors", choices=("last.safetensors", "best.safetensors"))
    parser.add_argument("--images", type=positive_integer, default=100, help="validation images")
    parser.add_argument("--size", type=height_and_width, default=(256, 512), help="HxW of a validation image")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"), help="where images and scores are kept")
    parser.add_argument("--json", type=Path, help="write the scores here too")
    parser.add_argument("--picture", type=Path, help="PNG with the density curves and the baselines")
    arguments = parser.parse_args(argv)
    try:
        check_outputs((arguments.json, arguments.picture))
        runs, left_out = finished_runs(arguments.runs, arguments.file)
        images = Streets("val", arguments.size, arguments.images, IMAGE_SEED)
        networks = networks_of(runs, images, arguments.cache, arguments.cache / "reproduction")
        holds, words = verdict(networks)
        print("\n".join([*left_out, "", table(networks), "", density_table(networks), "", words]))
        if arguments.picture:
            draw(arguments.picture, networks)
        if arguments.json:
            of = {"images": arguments.images, "size": arguments.size, "renderer": RENDERER_VERSION}
            trained = {name: runs[0].checkpoint.notes.get(name) for name in _ALIKE}
            rows = rows_of(networks, [entry.name for entry in CITYSCAPES])
            write_json(
                arguments.json,
                {**machine(), "scored": of, "trained": trained, "order_holds": holds, "verdict": words, "rows": rows},
            )
    except SplitmergeError as error:
        print(f"reproduction: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("reproduction: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
