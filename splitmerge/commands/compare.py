"""`splitmerge compare`: an engine against its PyTorch reference and ground truth."""

import argparse
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.options import add_engine_arguments, open_executor
from splitmerge.errors import InputError, VerificationError
from splitmerge.files import check_outputs, new_file, write_json
from splitmerge.options import positive_integer, scales

if TYPE_CHECKING:
    from runtime.examples import Example
    from splitmerge.labels import LabelClass

HELP = "Score an engine and its PyTorch reference on the same labelled images; fail where the engine lost IoU."

_WORST = 3
"""Frames in a report for each kind of worst: they stay in memory to the end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--package", type=Path, required=True, help="folder that `splitmerge export` made")
    parser.add_argument("--data", default="streets", help="streets, drive[:SEED], KIND:DIR[:SPLIT], or FOLDER")
    parser.add_argument(
        "--images", type=positive_integer, help="how many images (50 rendered ones, or all of a folder's)"
    )
    parser.add_argument("--max-iou-drop", type=float, default=0.1, metavar="POINTS", help="points of mIoU (0..100)")
    parser.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="the package holds your own network, made by this code of yours"
    )
    parser.add_argument(
        "--scales",
        type=scales,
        metavar="S,S,...",
        help="also score the PyTorch reference averaged over these scales, as 0.5,0.75,1,1.25,1.5,1.75",
    )
    parser.add_argument("--flip", action="store_true", help="also score it averaged with the mirrored frame")
    parser.add_argument("--picture", type=Path, help="PNG with example frames, label maps and differences")
    parser.add_argument("--json", type=Path, help="write the scores as JSON")
    parser.add_argument(
        "--report", type=Path, help="HTML file with scores, classes, confusion and the worst frames, complete in itself"
    )
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from runtime.compare import compare
    from runtime.html.comparison import write_comparison
    from runtime.reference import Reference
    from runtime.report import table
    from runtime.scales import MultiScale
    from splitmerge.package import Package
    from training.data import check_classes, open_dataset

    if not arguments.max_iou_drop >= 0:
        raise InputError(f"--max-iou-drop {arguments.max_iou_drop:g} cannot be: give 0 or more points of mIoU.")
    check_outputs((arguments.picture, arguments.json, arguments.report))
    package = Package.open(arguments.package)
    classes, size = package.manifest.classes, package.manifest.input.size
    check_classes(arguments.data, classes, str(arguments.package))
    dataset = open_dataset(arguments.data, size, arguments.images, num_classes=len(classes))
    reference = Reference(package, arguments.model)
    passes = arguments.scales or (1.0,)
    multi_scale = MultiScale(reference, passes, arguments.flip) if arguments.scales or arguments.flip else None
    with open_executor(package, arguments) as executor:
        examples = 3 if arguments.picture else 0
        worst = _WORST if arguments.report else 0
        result = compare(reference, executor, dataset, classes, examples, True, multi_scale, worst)
    print(table(result))
    if arguments.picture:
        _write_picture(arguments.picture, result.examples, classes)
    facts = executor.facts | {"model": package.manifest.model, "data": arguments.data, "size": list(size)}
    facts |= {"max_iou_drop_points": arguments.max_iou_drop, "machine": platform.platform()}
    if multi_scale:
        facts |= {"scales": list(passes), "flip": arguments.flip}
    if arguments.json:
        write_json(arguments.json, result.to_json() | facts)
    if arguments.report:
        write_comparison(arguments.report, result, package, facts)
    over = result.drop_points - arguments.max_iou_drop
    if over > 0:
        raise VerificationError(
            f"The engine loses {result.drop_points:.3f} points of mIoU against PyTorch, {over:.3f} more than the "
            f"{arguments.max_iou_drop:g} allowed: calibrate again, keep more layers in a higher precision, "
            "or allow more with --max-iou-drop."
        )
    return 0


def _write_picture(path: Path, examples: "list[Example]", classes: "tuple[LabelClass, ...]") -> None:
    from runtime.report import picture
    from runtime.sinks import write_image

    with new_file(path) as temporary:
        write_image(temporary, picture(examples, classes))
