"""How the papers train, by name. A number without a section beside it is one that the paper leaves open.

Weight decay is that of convolutions and linear layers alone, never of biases and batch norm, in every recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from splitmerge.errors import InputError

__all__ = ["RECIPES", "STREETS", "Recipe", "recipe_named"]


@dataclass(frozen=True)
class Recipe:
    """One way to train; the defaults are those that made the checkpoint in this repository, on `streets`.

    `crop` (height, width), `batch`, `stride`, `steps` or `epochs`, `lr` and `weight_decay` are what the user does not
    say otherwise; None leaves the rate and the decay to the network's own settings.

    `optimiser` is one of adamw, adam, amsgrad and sgd (with `momentum`); `schedule` one of warm-cosine, cosine, poly
    (with `power`) and constant, which with `by_epoch` changes after whole epochs only. Pretrained weights learn at
    `pretrained_rate` times the rate.

    `scale` are the least and greatest factor that images are rescaled by, where what lies outside is filled and
    ignored; None keeps their size. `colour` is how far brightness, contrast and saturation are changed, 0.2 by up to a
    fifth. `hard` are classes whose images count twice. `one_stream` draws a step's crops one after the other from a
    single stream, so that each process of several has to read them all; otherwise every crop has a stream of its own.

    `frozen_norms` leaves batch norm as it is; `norm_momentum` is the share of the newest batch in its running
    statistics (PyTorch's 0.1 where None); `exact_norms` has them computed again at the end, as plain averages.
    """

    name: str = "streets"
    optimiser: str = "adamw"
    momentum: float = 0.9
    schedule: str = "warm-cosine"
    power: float = 0.9
    by_epoch: bool = False
    lr: float | None = None
    weight_decay: float | None = None
    pretrained_rate: float = 1.0
    crop: tuple[int, int] = (128, 256)
    batch: int = 8
    stride: int = 16
    steps: int | None = 28_000
    epochs: int | None = None
    scale: tuple[float, float] | None = None
    colour: float = 0.0
    hard: tuple[str, ...] = ()
    one_stream: bool = True
    frozen_norms: bool = False
    norm_momentum: float | None = None
    exact_norms: bool = False

    def __post_init__(self) -> None:
        """Raises InputError for scales or colours that cannot be."""
        if self.scale is not None and not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise InputError(f"Scales from {self.scale[0]} to {self.scale[1]} cannot be: choose from 0.1 to 10.")
        if not 0 <= self.colour < 1:
            raise InputError(f"Colours changed by {self.colour} cannot be: choose from 0 to below 1.")


STREETS = Recipe()

_SMP = Recipe(
    name="smp",  # Split-Merge Pooling paper, section 4.2
    crop=(512, 512),  # and horizontal flips
    optimiser="adam",
    lr=1e-5,  # for weights from ImageNet (--pretrained); from random ones it takes for ever
    weight_decay=5e-4,
    batch=10,
    schedule="constant",
    stride=32,  # every level shrunk (section 3.2)
    one_stream=False,
)

_DEEPLAB = Recipe(
    name="deeplabv3",  # DeepLabv3 paper, section 4.1, first stage: trainaug at output stride 16
    schedule="poly",
    power=0.9,
    crop=(512, 512),  # 513, which is a multiple of 16 and one more: networks here would fill it up to 528
    batch=16,
    norm_momentum=1 - 0.9997,  # "decay = 0.9997"
    steps=30_000,
    lr=0.007,
    scale=(0.5, 2.0),  # and left-right flips
    optimiser="sgd",
    momentum=0.9,
    weight_decay=1e-4,  # neither is in the paper: as FastFCN, section 4.1
    one_stream=False,
)

_DEEPLAB_STAGE2 = Recipe(
    name="deeplabv3-stage2",  # section 4.1, second stage: trainval at output stride 8, from the first one's weights
    frozen_norms=True,
    steps=30_000,
    lr=0.001,
    schedule="poly",
    power=0.9,
    crop=(512, 512),
    batch=16,
    scale=(0.5, 2.0),
    optimiser="sgd",
    momentum=0.9,
    weight_decay=1e-4,
    one_stream=False,
)

_FASTFCN = Recipe(
    name="fastfcn",  # FastFCN paper, section 4.1: Pascal Context
    lr=0.001,  # 0.01 on ADE20K, for 120 epochs (section 4.3)
    schedule="poly",
    power=0.9,
    scale=(0.5, 2.0),  # and left-right flips
    crop=(480, 480),
    batch=16,
    steps=None,
    epochs=80,
    optimiser="sgd",
    momentum=0.9,
    weight_decay=1e-4,
    one_stream=False,
)

_LDN = Recipe(
    name="ldn",  # Ladder-DenseNet paper, section 5.1; the auxiliary losses 0.6 / 0.4 are the networks' own
    optimiser="amsgrad",
    lr=4e-4,
    schedule="cosine",
    by_epoch=True,
    pretrained_rate=1 / 4,  # 1/8 on PASCAL VOC (section 5.5)
    batch=16,
    scale=(0.5, 2.0),  # and flips; what lies outside is the mean pixel
    crop=(768, 768),  # 448 or 512 for smaller images
    steps=None,
    epochs=300,
    exact_norms=True,
    weight_decay=1e-4,  # not in the paper: this project's own
    one_stream=False,
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe for recipe in (STREETS, _SMP, _DEEPLAB, _DEEPLAB_STAGE2, _FASTFCN, _LDN)
}


def recipe_named(name: str) -> Recipe:
    """The recipe of a name. Raises InputError where there is none."""
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}: choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
