"""Weights to begin with: a torchvision classifier's file, or a checkpoint of this project."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from splitmerge.errors import CheckpointError, InputError
from training.checkpoint import load_checkpoint
from training.models import load_backbone
from training.networks.base import SegmentationNet
from training.own import is_own

__all__ = ["load_pretrained"]


def load_pretrained(model: SegmentationNet, path: Path, name: str) -> None:
    """Load `path` into a network of this name; nothing is fetched and nothing in the file is executed.

    A `.safetensors` checkpoint fills the whole network (of another output stride, say); any other file is a state dict
    of torchvision and fills the backbone. Raises InputError where there is no such file or no such backbone,
    CheckpointError where it does not fit.
    """
    if not path.is_file():
        raise InputError(
            f"There is no file {path} of pretrained weights, and none is fetched: save torchvision's where there is a "
            'network (torch.save(torchvision.models.resnet18(weights="DEFAULT").state_dict(), "resnet18.pth")) and '
            "copy it here, or leave --pretrained out."
        )
    if path.suffix == ".safetensors":
        _load_all(model, load_checkpoint(path, name if is_own(name) else None).model.state_dict(), path)
        return
    if not model.backbone_names:
        raise InputError(f"{name} has no backbone of torchvision's: leave --pretrained out.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a state dict ({type(error).__name__}): save it again with "
            "torch.save(model.state_dict(), FILE)."
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict: save it with torch.save(model.state_dict(), FILE).")
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path} has NaN or infinite values in {key}: copy it again.")
    try:
        load_backbone(model, _today(state, model))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _today(state: Mapping[str, Tensor], model: SegmentationNet) -> dict[str, Tensor]:
    """Names as they are today: torchvision's own files still have DenseNet's old ones, and lack batch norm's counts."""
    renamed = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key): value for key, value in state.items()}
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked") and key.partition(".")[0] in model.backbone_names:
            renamed.setdefault(key, torch.zeros_like(value))
    return renamed


def _load_all(model: SegmentationNet, state: Mapping[str, Tensor], path: Path) -> None:
    own = {key: value.shape for key, value in model.state_dict().items()}
    given = {key: value.shape for key, value in state.items()}
    wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if wrong:
        raise CheckpointError(
            f"{path} does not fit: {len(wrong)} tensors differ, the first is {wrong[0]}; begin with a checkpoint of "
            "the same network, width and number of classes, or leave --pretrained out."
        )
    model.load_state_dict(dict(state))
