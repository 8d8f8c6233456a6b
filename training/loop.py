"""The training loop: from a data set to checkpoints, with exact resume.

A run's folder holds

    config.json          the configuration, readable
    log.csv, curves.png  one row per validation, and drawn
    samples/STEP.jpg     what the network made of a few validation images; at the end best.jpg and worst.jpg of all
    best.safetensors     the checkpoint of the best validation mIoU
    last.safetensors     the newest one
    resume.pt            everything that resuming needs (read with weights_only: it cannot execute anything)
    diverged.safetensors the crops of the step at which loss or gradients were no numbers any more
    tensorboard/         the same rows and samples for TensorBoard, where asked for

Every random draw of a step (images, crops, flips, shrink offsets) comes from the seed and the step's number alone. So a
resumed run takes the very steps of an uninterrupted one, and networks trained with the same seed see the same crops
(SMP paper, section 4.2). Several processes, which torchrun starts, share each batch.
"""

from dataclasses import asdict
from pathlib import Path

from splitmerge.errors import InputError
from splitmerge.files import writable_folder, write_json
from splitmerge.labels import CITYSCAPES, LabelClass
from training.checkpoint import save_checkpoint
from training.data import Dataset
from training.interrupts import interrupts_wait
from training.learning import norms
from training.learning.allocator import keep_freed_memory
from training.learning.augment import check_fits, with_hard_images
from training.learning.config import TrainConfig
from training.learning.journal import Journal
from training.learning.loader import batch_of_step, batches
from training.learning.processes import joined
from training.learning.state import State, begin, save
from training.learning.step import loss_of_part, take_step
from training.learning.validation import scores_of

__all__ = ["TrainConfig", "train"]


def train(
    config: TrainConfig,
    images: Dataset,
    validation: Dataset,
    out: Path,
    classes: tuple[LabelClass, ...] = CITYSCAPES,
) -> float:
    """Train until `config.steps`, going on where `out` left off, and return the best validation mIoU (0..1).

    `classes` are those of the data's labels, in the order of their ids.

    Ctrl-C ends after the step at hand and saves, so that nothing is lost and no step is half done. Raises InputError
    for a configuration or images that cannot be, or where `out` holds another configuration, VerificationError where
    the loss diverges.
    """
    _check(config, images, validation)
    images = with_hard_images(images, classes, config.recipe.hard)
    with joined(config.device, config.batch, config.accumulate) as processes:
        writable_folder(out)
        state = begin(config, out, classes, max(1, len(images) // config.batch), processes)
        if processes.first:
            write_json(out / "config.json", asdict(config))
        if processes.device.type == "cpu":
            keep_freed_memory()
        part = processes.part(config.batch)
        steps = batches(config, images, state.step, part)
        with Journal(config, state, out) as journal, interrupts_wait() as interrupted:
            while state.step < config.steps:
                loss = take_step(config, state, next(steps), out)
                state.step += 1
                state.loss_sum, state.since = state.loss_sum + loss, state.since + 1
                journal.stepped()
                stops = bool(processes.total(interrupted()))  # of all, so that none waits for another
                if state.step % config.validate_every == 0 or state.step == config.steps:
                    _validate(config, state, images, validation, journal, out)
                elif state.step % config.save_every == 0 or stops:
                    save(config, state, out)
                if stops:
                    raise KeyboardInterrupt
        return state.best


def _check(config: TrainConfig, images: Dataset, validation: Dataset) -> None:
    if not len(images):
        raise InputError(f"The data set {config.data} holds no images to train on.")
    if not len(validation):
        raise InputError(f"The data set {config.data} holds no images to validate on.")
    check_fits(config, 0, images[0][1])


def _validate(
    config: TrainConfig, state: State, images: Dataset, validation: Dataset, journal: Journal, out: Path
) -> None:
    """Score, log, and save checkpoints and state."""
    rate = journal.rate()
    if state.step == config.steps and config.recipe.exact_norms:
        _recompute_norms(config, state, images)
    scores = scores_of(state.model, validation, state.processes)
    loss = state.loss_sum / state.since
    state.rows.append(
        {"step": state.step, "loss": round(loss, 5), "miou": round(scores.miou, 5), "images_per_s": round(rate, 1)}
    )
    state.loss_sum, state.since = 0.0, 0
    better = scores.miou > state.best
    state.best = max(state.best, scores.miou)
    journal.validated(scores, rate, validation)
    if state.processes.first:
        notes = {**asdict(config), "step": state.step, "validation_miou": scores.miou}
        for name in ("last", "best") if better else ("last",):
            save_checkpoint(out / f"{name}.safetensors", state.model, config.model, state.classes, notes)
    save(config, state, out)


def _recompute_norms(config: TrainConfig, state: State, images: Dataset) -> None:
    """Batch norm's statistics over an epoch of crops beyond those that were learnt from."""
    part = state.processes.part(config.batch)

    def forward(index: int) -> object:
        step = config.steps + index
        return loss_of_part(config, state, batch_of_step(config, images, step, part), step)

    norms.recompute(state.model, state.epoch_steps, forward)
