"""What a run leaves to look at: progress on the screen, log.csv, curves, sample pictures, TensorBoard's events."""

import csv
import time
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from splitmerge.errors import InputError
from splitmerge.files import new_file
from training.data import Dataset
from training.datasets.reading import Image
from training.learning.config import TrainConfig
from training.learning.curves import curves
from training.learning.gallery import best_and_worst, gallery, spread
from training.learning.state import State
from training.learning.validation import Scores

__all__ = ["Journal"]


class Journal:
    """Of the first process; the others' say nothing. A context manager.

    Raises InputError where TensorBoard's events were asked for and cannot be written.
    """

    def __init__(self, config: TrainConfig, state: State, out: Path) -> None:
        self.config, self.state, self.out = config, state, out
        self.events = _events(out, state.step) if config.tensorboard and state.processes.first else None
        self.bar = tqdm(
            total=config.steps,
            initial=state.step,
            unit="step",
            desc=config.model,
            disable=None if state.processes.first else True,
        )
        self.started, self.steps = time.perf_counter(), 0

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.events is not None:
            self.events.close()

    def stepped(self) -> None:
        """Show a step; the bar itself knows the time left."""
        self.steps += 1
        self.bar.update()
        loss, rate = self.state.loss_sum / self.state.since, f"{self.rate():.3g}"
        self.bar.set_postfix({"loss": f"{loss:.3f}", "best": f"{max(self.state.best, 0):.3f}", "images/s": rate})

    def rate(self) -> float:
        """Crops per second since the last validation, of all processes."""
        return self.steps * self.config.batch / max(1e-9, time.perf_counter() - self.started)

    def validated(self, scores: Scores, images_per_s: float, validation: Dataset) -> None:
        """Write down a validation, whose row the state has already got."""
        state, row = self.state, self.state.rows[-1]
        self.started, self.steps = time.perf_counter(), 0
        if not state.processes.first:
            return
        tqdm.write(
            f"step {state.step}: loss {row['loss']:.3f}, validation mIoU {100 * scores.miou:.2f}, "
            f"{images_per_s:.0f} images/s"
        )
        with new_file(self.out / "log.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(state.rows[0]))
            writer.writeheader()
            writer.writerows(state.rows)
        _write(self.out / "curves.png", curves(state.rows))
        shown = gallery(state.model, validation, spread(len(validation)), scores.of_images, state.classes)
        _write(self.out / "samples" / f"{state.step:07d}.jpg", shown)
        if state.step == self.config.steps:
            for name, indices in zip(("best", "worst"), best_and_worst(scores.of_images), strict=True):
                if indices:
                    picture = gallery(state.model, validation, indices, scores.of_images, state.classes)
                    _write(self.out / f"{name}.jpg", picture)
        if self.events is not None:
            for name in ("loss", "miou", "images_per_s"):
                self.events.add_scalar(name, row[name], state.step)
            self.events.add_scalar("lr", state.optimiser.param_groups[0]["lr"], state.step)
            self.events.add_image("samples", shown[..., ::-1], state.step, dataformats="HWC")
            self.events.flush()
        self.started = time.perf_counter()


def _events(out: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError(
            "TensorBoard's events need the package tensorboardX, which is not installed: pip install "
            '"splitmerge[tensorboard]", or leave --tensorboard out.'
        ) from None
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)


def _write(path: Path, picture: Image) -> None:
    with new_file(path) as temporary:
        cv2.imwrite(str(temporary), picture)
