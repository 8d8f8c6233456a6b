"""`splitmerge train`: from a data set to a checkpoint."""

import argparse
from pathlib import Path

from splitmerge.options import height_and_width

HELP = "Train a network; go on where an interrupted training stopped."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smp18", help="see `splitmerge models`; or MODULE:FUNCTION, code of yours")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage; 64 in the papers")
    parser.add_argument(
        "--data",
        action="append",
        help="`streets`, a folder with images/ and labels/, or an official data set as cityscapes:DIR; again for each "
        "of several that are trained on together (default: streets)",
    )
    parser.add_argument("--size", type=height_and_width, default=(256, 512), help="HxW that streets is drawn at")
    parser.add_argument("--images", type=int, default=4000, help="how many streets images to train on")
    parser.add_argument("--validation-images", type=int, default=100, help="how many streets images to validate on")
    parser.add_argument("--crop", type=height_and_width, default=(128, 256), help="HxW of the training crops")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument(
        "--stride", type=int, default=16, help="SMP: learn from one pixel per such window: 1, 2, 4, 8, 16 or 32"
    )
    parser.add_argument("--steps", type=int, default=28_000, help="optimiser steps in all")
    parser.add_argument("--lr", type=float, help="highest learning rate; by default the network's own")
    parser.add_argument(
        "--weight-decay", type=float, help="decay of the convolutions' weights; by default the network's own"
    )
    parser.add_argument(
        "--checkpointing",
        nargs="?",
        const="full",
        default="off",
        help="save memory by computing activations again: full, units, blocks, cat-1x1, 3x3, cat-1x1-and-3x3 or off",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and shrink offsets")
    parser.add_argument("--validate-every", type=int, default=2000, help="steps between validations")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"), help="where drawn images are kept")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, log and configuration")


def run(arguments: argparse.Namespace) -> int:
    from training.data import classes_of, training_sets
    from training.loop import TrainConfig, train
    from training.own import named_by_user

    data = ",".join(arguments.data or ["streets"])
    classes = classes_of(data)
    settings = named_by_user(arguments.model).settings
    config = TrainConfig(
        model=arguments.model,
        width=arguments.width,
        data=data,
        crop=arguments.crop,
        size=arguments.size,
        images=arguments.images,
        validation_images=arguments.validation_images,
        batch=arguments.batch,
        stride=arguments.stride,
        steps=arguments.steps,
        lr=settings.lr if arguments.lr is None else arguments.lr,
        weight_decay=settings.weight_decay if arguments.weight_decay is None else arguments.weight_decay,
        seed=arguments.seed,
        validate_every=arguments.validate_every,
        checkpointing=arguments.checkpointing,
    )
    images, validation = training_sets(
        data, arguments.size, arguments.images, arguments.validation_images, arguments.cache, len(classes)
    )
    print(f"{data}: {len(images):,} images to train on, {len(validation):,} to validate on, {len(classes)} classes")
    best = train(config, images, validation, arguments.out, classes)
    print(f"best validation mIoU {100 * best:.2f}, checkpoint {arguments.out / 'best.safetensors'}")
    return 0
