"""One step: loss and gradients of its crops, over parts and processes, and what is done where they are no numbers."""

import json
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import save as safetensors_of
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from splitmerge.errors import VerificationError
from splitmerge.files import new_file
from splitmerge.labels import IGNORE
from training.evaluate import normalise
from training.learning import norms
from training.learning.compiled import failures_told
from training.learning.config import TrainConfig
from training.learning.loader import Batch
from training.learning.optimiser import rate_factor
from training.learning.precision import autocast
from training.learning.state import State
from training.networks.smp import SMP

__all__ = ["loss_of_part", "take_step"]

_DIVERGED = 100.0  # times the first step's loss: no recipe recovers from that
_LEAST_SCALE = 1.0  # of float16's gradients: none that fit are left below


def take_step(config: TrainConfig, state: State, batch: Batch, out: Path) -> float:
    """Learn from this process's crops of a step; the mean loss of all processes' crops.

    Raises VerificationError where loss or gradients are no numbers or the loss is a hundred times that of the first
    step, before the weights change; the crops are saved in `out` then.
    """
    factor = rate_factor(config, state.step, state.epoch_steps)
    for group in state.optimiser.param_groups:
        group["lr"] = config.lr * factor * group.get("rate", 1.0)
    state.model.train()
    if config.recipe.frozen_norms:
        norms.freeze(state.model)
    state.optimiser.zero_grad()
    loss_sum = 0.0
    parts = _parts(config, state, batch)
    for number, (part, weight) in enumerate(parts):
        with _gradients_kept(state, number + 1 < len(parts)), failures_told() if config.compile else nullcontext():
            loss = loss_of_part(config, state, part, state.step)
            if weight != 1:
                loss = loss * weight
            loss_sum += state.processes.total(float(loss.detach())) / state.processes.count
            _check_loss(state, loss_sum, batch, out)
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if state.first_loss is None:
        state.first_loss = loss_sum
    if not state.scaler.is_enabled():
        _check_gradients(state, batch, out)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.scaler.is_enabled() and state.scaler.get_scale() < _LEAST_SCALE:
        raise _stopped(state, "The gradients do not fit float16", batch, out)
    return loss_sum


def loss_of_part(config: TrainConfig, state: State, part: Batch, step: int) -> Tensor:
    """The loss of some crops, whose random numbers are those of a step."""
    device = state.processes.device
    # Networks of the user's own may draw (dropout): from the step alone, so that it can be resumed.
    torch.manual_seed((config.draws * 1_000_003 + step) * state.processes.count + state.processes.rank)
    if isinstance(state.model, SMP):
        state.model.generator = torch.Generator().manual_seed(config.draws * 1_000_003 + step)
        state.model.training_stride = config.stride
    images = normalise(part.images_bgr.to(device, non_blocking=True))
    labels = part.labels.to(device, non_blocking=True).long()
    with autocast(config.precision, device):
        loss: Tensor = state.loss_of(images, labels)
    return loss


def _parts(config: TrainConfig, state: State, batch: Batch) -> list[tuple[Batch, float]]:
    """The parts that are computed one by one, and the weights that make of their means the mean over all pixels."""
    if config.accumulate == 1 and state.processes.count == 1:
        return [(batch, 1.0)]
    size = len(batch.labels) // config.accumulate
    parts = []
    for first in range(0, len(batch.labels), size):
        part = slice(first, first + size)
        parts.append(Batch(batch.images_bgr[part], batch.labels[part], batch.indices[part]))
    labelled = [int((part.labels != IGNORE).sum()) for part in parts]
    total = max(1.0, state.processes.total(sum(labelled)))
    return [(part, count * state.processes.count / total) for part, count in zip(parts, labelled, strict=True)]


def _gradients_kept(state: State, kept: bool) -> AbstractContextManager[None]:
    """Gradients are exchanged after the last part alone."""
    if kept and isinstance(state.loss_of, DistributedDataParallel):
        return state.loss_of.no_sync()
    return nullcontext()


def _check_loss(state: State, loss: float, batch: Batch, out: Path) -> None:
    if not math.isfinite(loss):
        raise _stopped(state, f"The loss became {loss}", batch, out)
    if state.first_loss is not None and loss > _DIVERGED * max(state.first_loss, 1.0):
        raise _stopped(state, f"The loss grew from {state.first_loss:.3g} to {loss:.3g}", batch, out)


def _check_gradients(state: State, batch: Batch, out: Path) -> None:
    gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
    if not math.isfinite(float(torch.nn.utils.get_total_norm(gradients))):
        raise _stopped(state, "The gradients became infinite", batch, out)


def _stopped(state: State, what: str, batch: Batch, out: Path) -> VerificationError:
    """The error to raise, after the crops were saved: tensors `images_bgr`, `labels` and `indices`, uint8 and int64."""
    number = "" if state.processes.count == 1 else f"-{state.processes.rank}"
    path = out / f"diverged{number}.safetensors"
    tensors = {
        "images_bgr": batch.images_bgr.contiguous(),
        "labels": batch.labels.contiguous(),
        "indices": torch.tensor(batch.indices),
    }
    with new_file(path) as temporary:
        temporary.write_bytes(safetensors_of(tensors, {"step": str(state.step), "what": json.dumps(what)}))
    return VerificationError(
        f"{what} at step {state.step} (its crops are in {path}): train with a lower --lr into another --out, from "
        "--pretrained last.safetensors of this one if you like, or look at those images and labels."
    )
