"""Optimisers and schedules of the recipes."""

import math
from typing import Any

import torch
from torch import nn

from splitmerge.errors import InputError
from training.learning.config import TrainConfig
from training.networks.base import SegmentationNet

__all__ = ["optimiser_of", "rate_factor"]


def optimiser_of(config: TrainConfig, model: SegmentationNet) -> torch.optim.Optimizer:
    """The recipe's optimiser over what can be learnt. Decay is that of tensors of two or more dimensions alone.

    Where `config.pretrained` says so, the backbone's groups have a `rate` of their own.
    """
    apart = config.pretrained is not None and config.recipe.pretrained_rate != 1
    groups: list[dict[str, Any]] = []
    for pretrained in (False, True) if apart else (False,):
        for decayed in (True, False):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and (parameter.ndim > 1) == decayed
                and (not apart or _of_backbone(model, name) == pretrained)
            ]
            rate = config.recipe.pretrained_rate if pretrained else 1.0
            decay = config.weight_decay if decayed else 0.0
            groups.append({"params": parameters, "weight_decay": decay, "rate": rate})
    name, momentum = config.recipe.optimiser, config.recipe.momentum
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    if name in ("adam", "amsgrad"):
        return torch.optim.Adam(groups, lr=config.lr, amsgrad=name == "amsgrad")
    if name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=momentum)
    raise InputError(f"There is no optimiser {name!r}: choose adamw, adam, amsgrad or sgd.")


def rate_factor(config: TrainConfig, step: int, epoch: int = 1) -> float:
    """Factor of the learning rate before a step, 0 to 1; `epoch` is how many steps one has."""
    recipe, steps = config.recipe, config.steps
    if recipe.by_epoch:
        step = step // epoch * epoch
    if recipe.schedule == "warm-cosine":  # linear over the first twentieth, then half a cosine down to zero
        warm_up = max(1, steps // 20)
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / steps))
    if recipe.schedule == "poly":
        return float((1 - step / steps) ** recipe.power)
    if recipe.schedule == "constant":
        return 1.0
    raise InputError(f"There is no schedule {recipe.schedule!r}: choose warm-cosine, cosine, poly or constant.")


def _of_backbone(model: nn.Module, name: str) -> bool:
    return name.partition(".")[0] in getattr(model, "backbone_names", ())
