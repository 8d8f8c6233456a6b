"""The networks by name. Each family is a module of `training.networks` with a dict `NETWORKS`, listed here."""

import dataclasses
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from splitmerge.errors import CheckpointError, InputError
from training.networks import deeplab, fastfcn, fcn, ldn, smp
from training.networks.base import Network, SegmentationNet
from training.networks.options import options_from_text

__all__ = ["build_model", "create_model", "list_models", "load_backbone", "network_named"]

_NETWORKS: Mapping[str, Network] = {
    **smp.NETWORKS,
    **fcn.NETWORKS,
    **deeplab.NETWORKS,
    **fastfcn.NETWORKS,
    **ldn.NETWORKS,
}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return list(_NETWORKS)


def network_named(name: str) -> Network:
    """The entry of a name, with what options it has behind commas. Raises InputError where there is none."""
    first, *texts = name.split(",")
    if first not in _NETWORKS:
        raise InputError(f"There is no model named {first!r}: choose one of {', '.join(_NETWORKS)}.")
    network = _NETWORKS[first]
    options = options_from_text(first, texts, network.options)
    return dataclasses.replace(network, build=partial(network.build, **options))


def create_model(name: str, num_classes: int = 19, width: int = 64) -> SegmentationNet:
    """A network with fresh weights; `width` is the channels of the first stage (64 in the papers).

    Options follow the name: `deeplabv3-50,output_stride=8`.

    Raises InputError for a name, number of classes or width that cannot be.
    """
    return build_model(network_named(name), num_classes, width)


def build_model(network: Network, num_classes: int, width: int) -> SegmentationNet:
    """A network with fresh weights. Raises InputError for a number of classes or width that cannot be."""
    if not 2 <= num_classes <= 255:
        raise InputError(f"A model of {num_classes} classes cannot be: labels are uint8, so choose 2 to 255 classes.")
    if width < 1:
        raise InputError(f"A model of width {width} cannot be: choose 1 channel or more (64 is the papers').")
    return network.build(num_classes, width)


def load_backbone(model: SegmentationNet, state: Mapping[str, Tensor]) -> None:
    """Load the state dict of torchvision's classifier of the same depth; its fully connected layer is left out.

    Raises CheckpointError where names or shapes are another network's.
    """
    own = {name: value.shape for name, value in model.state_dict().items() if _first(name) in model.backbone_names}
    left_out = ("fc.", "classifier.", *model.backbone_leaves_out)
    given = {name: value.shape for name, value in state.items() if not name.startswith(left_out)}
    wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"The backbone's state dict does not fit: {len(wrong)} tensors differ, the first is {name} "
            f"({_shape(given.get(name))} given, {_shape(own.get(name))} expected); use torchvision's network of the "
            "same depth and width."
        )
    model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)


def _first(name: str) -> str:
    return name.partition(".")[0]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "scalar"
