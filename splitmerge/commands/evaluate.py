"""`splitmerge evaluate`: a checkpoint's scores in PyTorch, on full-size images, and its predictions for a benchmark."""

import argparse
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitmerge.errors import InputError
from splitmerge.files import check_outputs, write_json
from splitmerge.options import height_and_width, positive_integer, scales

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.scoring.images import ScoredImage

HELP = "Score a checkpoint in PyTorch on full-size labelled images; write predictions for Cityscapes' test server."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="FILE.safetensors that `splitmerge train` made")
    parser.add_argument(
        "--data",
        default="streets",
        help="streets, drive[:SEED], KIND:DIR[:SPLIT], or FOLDER; cityscapes:DIR:test has no labels (see --submission)",
    )
    parser.add_argument(
        "--images", type=positive_integer, help="how many images (50 rendered ones, or all of a folder's)"
    )
    parser.add_argument(
        "--size", type=height_and_width, default=(256, 512), help="HxW that rendered images are drawn at"
    )
    parser.add_argument("--scales", type=scales, default=(1.0,), metavar="S,S,...", help="average over these scales")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    parser.add_argument("--device", default="auto", help="auto (a GPU where PyTorch sees one), cpu or cuda")
    parser.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="the checkpoint is of your own network, made by this"
    )
    parser.add_argument("--submission", type=Path, metavar="DIR", help="write PNGs of Cityscapes' label ids into DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores as JSON")


def run(arguments: argparse.Namespace) -> int:
    from training.checkpoint import load_checkpoint
    from training.data import check_classes
    from training.learning.processes import device_named
    from training.scoring.evaluation import evaluate
    from training.scoring.images import images_to_score
    from training.scoring.submission import Submission

    check_outputs((arguments.json,), (arguments.submission,))
    device = device_named(arguments.device)
    checkpoint = load_checkpoint(arguments.checkpoint, arguments.model)
    check_classes(arguments.data, checkpoint.classes, str(arguments.checkpoint))
    images = images_to_score(arguments.data, arguments.size, arguments.images, len(checkpoint.classes))
    _check_purpose(arguments, images)
    way = _way(arguments, checkpoint)
    submission = Submission(arguments.submission, way) if arguments.submission else None
    scores = evaluate(
        checkpoint, images, arguments.scales, arguments.flip, device, submission=submission, progress=True
    )
    if submission:
        print(f"{submission.folder}: predictions of {len(images):,} images, to be zipped")
    if scores.images:
        print(scores.table())
    if arguments.json:
        facts = {
            "model": checkpoint.name,
            "data": arguments.data,
            "device": str(device),
            "machine": platform.platform(),
        }
        write_json(arguments.json, scores.to_json() | way | facts if scores.images else way | facts)
    return 0


def _way(arguments: argparse.Namespace, checkpoint: "Checkpoint") -> dict[str, Any]:
    """What the predictions depend on, beside the images."""
    return {"checkpoint": checkpoint.sha256, "scales": list(arguments.scales), "flip": arguments.flip}


def _check_purpose(arguments: argparse.Namespace, images: "list[ScoredImage]") -> None:
    if arguments.submission and not all(image.is_cityscapes for image in images):
        raise InputError(
            f"{arguments.data} is not Cityscapes, whose test server takes submissions: give --data cityscapes:DIR or "
            "cityscapes:DIR:test, or leave --submission out."
        )
    if not arguments.submission and not any(image.is_labelled for image in images):
        raise InputError(
            f"{arguments.data} has no labels to score against: add --submission DIR for predictions, or name a split "
            "that is labelled."
        )
