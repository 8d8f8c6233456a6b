"""Checkpoints: one safetensors file with the weights, and in its header what network and classes they belong to.

Nothing in such a file is ever executed. The header's `splitmerge` entry is JSON:
`{"model", "width", "classes": [{"name", "rgb"}], "mean", "std", "notes"}`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from splitmerge.errors import CheckpointError, InputError, SplitmergeError
from splitmerge.files import new_file, sha256_of
from splitmerge.labels import LabelClass
from training.networks.base import SegmentationNet
from training.own import is_own, model_named_by_user

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Checkpoint", "load_checkpoint", "save_checkpoint"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Red, green, blue in units of 0..1: what torchvision's backbones were trained with."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network (evaluation mode, float32, CPU) and how its input is normalised (RGB, units of 0..1)."""

    model: SegmentationNet
    name: str
    width: int
    classes: tuple[LabelClass, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    notes: Mapping[str, Any]
    sha256: str


def save_checkpoint(
    path: Path,
    model: SegmentationNet,
    name: str,
    classes: tuple[LabelClass, ...],
    notes: Mapping[str, Any] | None = None,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> None:
    """Write a checkpoint, whole or not at all. `notes` is anything JSON that a reader may want to know."""
    if len(classes) != model.num_classes:
        raise CheckpointError(f"{path} cannot be written: {len(classes)} classes for a model of {model.num_classes}.")
    header = {
        "model": name,
        "width": model.width,
        "classes": [asdict(entry) for entry in classes],
        "mean": mean,
        "std": std,
        "notes": dict(notes or {}),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with new_file(path) as temporary:
        temporary.write_bytes(save(tensors, {"splitmerge": json.dumps(header)}))  # save_file would hide it from others


def load_checkpoint(path: Path, own: str | None = None) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError for one that is missing, damaged, another network's or not finite.

    A user's own network is imported as the user names it, in `own`: never because a file does.
    """
    header, tensors = _read(path)
    try:
        name, width = str(header["model"]), int(header["width"])
        classes = tuple(_label_class(entry) for entry in header["classes"])
        mean, std = _triple(header["mean"]), _triple(header["std"])
        if min(std) <= 0:
            raise ValueError(f"std {std}")
        model = model_named_by_user(_name(path, name, own), len(classes), width)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a header without a usable {error}: save it with splitmerge again.") from None
    except SplitmergeError as error:
        raise CheckpointError(f"{path} is of no use here: {error}") from None
    _load(model, tensors, path, name)
    return Checkpoint(model.eval(), name, width, classes, mean, std, header.get("notes", {}), sha256_of(path))


def _name(path: Path, name: str, own: str | None) -> str:
    if is_own(name) and own is None:
        raise InputError(
            f"it holds a network of somebody's own, and no code runs because a file names it: add --model {name} if "
            "you trust that code."
        )
    if own is not None and not (is_own(name) and is_own(own)):
        if own != name:
            raise InputError(f"it holds {name}, not {own}: leave --model out.")
        return name
    return own or name


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}: train one with `splitmerge train --out DIR`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): copy or save it again.") from None
    try:
        header = json.loads(metadata["splitmerge"])
    except (KeyError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path} does not say which network it is (no `splitmerge` entry in its header): "
            "save it with training.checkpoint.save_checkpoint."
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} has a header that is not a JSON object: save it with splitmerge again.")
    return header, tensors


def _load(model: SegmentationNet, tensors: Mapping[str, Tensor], path: Path, name: str) -> None:
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if wrong:
        key = wrong[0]
        raise CheckpointError(
            f"{path} does not hold a {name} of width {model.width} and {model.num_classes} classes: {len(wrong)} "
            f"tensors differ, the first is {key} ({given.get(key, 'none')} given, {own.get(key, 'none')} expected)."
        )
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path} has NaN or infinite values in {key}: go back to an earlier checkpoint.")
    model.load_state_dict(dict(tensors))


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError(f"triple {values}")
    return first, second, third


def _label_class(entry: Any) -> LabelClass:
    red, green, blue = (int(value) for value in entry["rgb"])
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"colour {entry['rgb']}")
    return LabelClass(str(entry["name"]), (red, green, blue))
