"""What one training is: network, data, recipe and means."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES
from training.learning.precision import PRECISIONS
from training.learning.recipes import STREETS, Recipe
from training.networks.smp import SMP
from training.own import is_own, model_named_by_user
from training.recompute import set_checkpointing
from training.reduction import STRIDE, strides_of

__all__ = ["TrainConfig", "first_difference"]

_MEANS = ("checkpointing", "workers", "tensorboard", "device")
"""What changes time and memory, and no draw: a training may go on with others."""


@dataclass(frozen=True)
class TrainConfig:
    """One training.

    `crop` is (height, width) in pixels, multiples of 32 (for SMP, of its stride); `lr` the peak of the recipe's
    schedule; `batch` the crops of a step, of all processes and parts together.

    `size` (height, width), `images` and `validation_images` say how much of a rendered data set was drawn.

    `stride` is a Split-Merge Pooling network's training stride: one pixel of each window of that many squared is learnt
    from (`training.networks.smp.SMP`). Other networks ignore it. `augment_seed` draws images, crops, flips and shrink
    offsets, where it is other than `seed`, which draws the weights. `pretrained` is the file that they begin with.

    `accumulate` computes a step's crops in so many parts, whose gradients are summed. `precision` is that of
    `training.learning.precision`. `checkpointing` is a plan of `training.recompute`; `workers` are processes that
    prepare crops: both change memory and time and no number, so that a training may go on with others. `compile`
    (`training.learning.compiled`) changes roundings: a training goes on as it began.
    """

    model: str = "smp18"
    width: int = 16
    data: str = "streets"
    crop: tuple[int, int] = (128, 256)
    size: tuple[int, int] = (256, 512)
    images: int = 4000
    validation_images: int = 100
    batch: int = 8
    stride: int = STRIDE
    steps: int = 10_000
    lr: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0
    validate_every: int = 1_000
    save_every: int = 500
    checkpointing: str = "off"
    recipe: Recipe = field(default=STREETS)
    augment_seed: int | None = None
    pretrained: str | None = None
    accumulate: int = 1
    precision: str = "fp32"
    workers: int = 0
    tensorboard: bool = False
    device: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        """Raises InputError for what cannot be, before any image is drawn."""
        for name in ("steps", "batch", "validate_every", "save_every", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"A training with {name} {getattr(self, name)} cannot be: choose 1 or more.")
        if self.workers < 0:
            raise InputError(f"A training with workers {self.workers} cannot be: choose 0 or more.")
        if self.batch % self.accumulate:
            raise InputError(
                f"A batch of {self.batch} does not divide into {self.accumulate} parts: choose another --accumulate."
            )
        if self.compile and self.checkpointing != "off":
            raise InputError("--compile does not go together with --checkpointing: leave one of them out.")
        if self.precision not in PRECISIONS:
            raise InputError(f"There is no precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}.")
        if not math.isfinite(self.lr) or self.lr <= 0:
            raise InputError(f"A learning rate of {self.lr} cannot be: choose a number above 0.")
        with torch.device("cpu" if is_own(self.model) else "meta"):  # its structure alone
            model = model_named_by_user(self.model, len(CITYSCAPES), self.width)
        stride = model.stride if isinstance(model, SMP) else STRIDE
        if self.crop[0] % stride or self.crop[1] % stride or min(self.crop) < stride:
            raise InputError(f"The crop {self.crop[0]}x{self.crop[1]} must be a multiple of {stride} on both sides.")
        if isinstance(model, SMP) and self.stride not in strides_of(model.windows):
            choices = ", ".join(map(str, dict.fromkeys(strides_of(model.windows))))
            raise InputError(f"{self.model} cannot learn at a stride of {self.stride}: choose one of {choices}.")
        set_checkpointing(model, self.checkpointing)

    @property
    def draws(self) -> int:
        """The seed of images, crops, flips and shrink offsets."""
        return self.seed if self.augment_seed is None else self.augment_seed


def first_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first thing (name, then, now) that two trainings, as dictionaries, do not share, means left out.

    What an older training does not know of was as it is by default.
    """
    defaults = {entry.name: entry.default for entry in fields(TrainConfig) if entry.name != "recipe"}
    for name, value in now.items():
        if name in _MEANS:
            continue
        if name == "recipe":
            found = _first_of_recipe(then.get(name, {}), value)
            if found:
                return found
        elif (before := then.get(name, defaults[name])) != value:
            return name, before, value
    return None


def _first_of_recipe(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    defaults = {entry.name: entry.default for entry in fields(Recipe)}
    differing = [name for name in now if then.get(name, defaults[name]) != now[name]]
    if not differing:
        return None
    name = differing[0]
    return f"recipe {name}".removesuffix(" name"), then.get(name, defaults[name]), now[name]
