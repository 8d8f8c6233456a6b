"""`splitmerge train`: from a data set to a checkpoint."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.options import height_and_width

if TYPE_CHECKING:
    from training.learning.recipes import Recipe

HELP = "Train a network; go on where an interrupted training stopped."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smp18", help="see `splitmerge models`; or MODULE:FUNCTION, code of yours")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage; 64 in the papers")
    parser.add_argument(
        "--pretrained",
        type=Path,
        metavar="FILE",
        help="weights to begin with: a state dict of torchvision's classifier, or a .safetensors checkpoint",
    )
    _add_data(parser)
    _add_recipe(parser)
    _add_means(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and shrink offsets")
    parser.add_argument("--augment-seed", type=int, help="of crops and shrink offsets, where it is another than --seed")
    parser.add_argument(
        "--validate-every", type=_steps_or_epoch, default=2000, metavar="STEPS", help="between validations; or `epoch`"
    )
    parser.add_argument("--tensorboard", action="store_true", help="write OUT/tensorboard, too (extra `tensorboard`)")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, log, pictures, configuration")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        action="append",
        help="`streets`, a folder with images/ and labels/, or an official data set as cityscapes:DIR; again for each "
        "of several that are trained on together (default: streets)",
    )
    parser.add_argument("--size", type=height_and_width, default=(256, 512), help="HxW that streets is drawn at")
    parser.add_argument("--images", type=int, default=4000, help="how many streets images to train on")
    parser.add_argument("--validation-images", type=int, default=100, help="how many streets images to validate on")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"), help="where drawn images are kept")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        default="streets",
        help="optimiser, schedule, crops and more as a paper has them: streets (the default, which made the shipped "
        "checkpoint), smp, deeplabv3, deeplabv3-stage2, fastfcn or ldn; what follows changes one thing of it",
    )
    parser.add_argument("--crop", type=height_and_width, help="HxW of the training crops")
    parser.add_argument("--batch", type=int, help="crops per step, of all processes and parts together")
    parser.add_argument("--stride", type=int, help="SMP: learn from one pixel per such window: 1, 2, 4, 8, 16 or 32")
    parser.add_argument("--steps", type=int, help="optimiser steps in all")
    parser.add_argument("--lr", type=float, help="highest learning rate")
    parser.add_argument("--weight-decay", type=float, help="decay of the convolutions' weights")
    parser.add_argument("--scale", type=_two_factors, metavar="LOW-HIGH", help="rescale images by this, as 0.5-2")
    parser.add_argument("--colour", type=float, help="change brightness, contrast, saturation by up to this, as 0.2")
    parser.add_argument("--hard", metavar="CLASSES", help="count images with these classes twice, as bicycle,chair")


def _add_means(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (a GPU where PyTorch sees one), cpu or cuda")
    parser.add_argument("--precision", default="fp32", help="fp32, or bf16 or fp16 for convolutions")
    parser.add_argument("--accumulate", type=int, default=1, help="parts that a step's crops are computed in")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the step; takes a C++ compiler and minutes"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare crops ahead")
    parser.add_argument(
        "--checkpointing",
        nargs="?",
        const="full",
        default="off",
        help="save memory by computing activations again: full, units, blocks, cat-1x1, 3x3, cat-1x1-and-3x3 or off",
    )


def run(arguments: argparse.Namespace) -> int:
    from training.data import classes_of, training_sets
    from training.loop import TrainConfig, train
    from training.own import named_by_user

    data = ",".join(arguments.data or ["streets"])
    classes = classes_of(data)
    recipe, settings = _recipe(arguments), named_by_user(arguments.model).settings
    steps = recipe.steps if arguments.steps is None else arguments.steps
    config = TrainConfig(
        model=arguments.model,
        width=arguments.width,
        data=data,
        crop=arguments.crop or recipe.crop,
        size=arguments.size,
        images=arguments.images,
        validation_images=arguments.validation_images,
        batch=recipe.batch if arguments.batch is None else arguments.batch,
        stride=recipe.stride if arguments.stride is None else arguments.stride,
        steps=1 if steps is None else steps,  # epochs are steps once the images are counted
        lr=_first_said(arguments.lr, recipe.lr, settings.lr),
        weight_decay=_first_said(arguments.weight_decay, recipe.weight_decay, settings.weight_decay),
        seed=arguments.seed,
        validate_every=1 if arguments.validate_every == "epoch" else arguments.validate_every,
        checkpointing=arguments.checkpointing,
        recipe=recipe,
        augment_seed=arguments.augment_seed,
        pretrained=str(arguments.pretrained) if arguments.pretrained else None,
        accumulate=arguments.accumulate,
        precision=arguments.precision,
        workers=arguments.workers,
        tensorboard=arguments.tensorboard,
        device=arguments.device,
        compile=arguments.compile,
    )
    images, validation = training_sets(
        data, arguments.size, arguments.images, arguments.validation_images, arguments.cache, len(classes)
    )
    epoch = max(1, len(images) // config.batch)
    if steps is None:
        config = replace(config, steps=(recipe.epochs or 1) * epoch)
    if arguments.validate_every == "epoch":
        config = replace(config, validate_every=epoch)
    say = print if os.environ.get("RANK", "0") == "0" else lambda _: None
    say(f"{data}: {len(images):,} images to train on, {len(validation):,} to validate on, {len(classes)} classes")
    best = train(config, images, validation, arguments.out, classes)
    say(f"best validation mIoU {100 * best:.2f}, checkpoint {arguments.out / 'best.safetensors'}")
    return 0


def _recipe(arguments: argparse.Namespace) -> "Recipe":
    """The recipe, with what the command line changes of its images."""
    from training.learning.recipes import recipe_named

    recipe = recipe_named(arguments.recipe)
    if arguments.scale is not None:
        recipe = replace(recipe, scale=arguments.scale)
    if arguments.colour is not None:
        recipe = replace(recipe, colour=arguments.colour)
    if arguments.hard is not None:
        recipe = replace(recipe, hard=tuple(filter(None, arguments.hard.split(","))))
    return recipe


def _first_said(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _steps_or_epoch(text: str) -> int | str:
    if text == "epoch":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of steps: give one, or `epoch`.") from None


def _two_factors(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are no two factors: give LOW-HIGH, as 0.5-2.") from None
