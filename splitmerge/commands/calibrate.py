"""`splitmerge calibrate`: a package gets graphs of a reduced precision."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.errors import InputError, VerificationError
from splitmerge.options import positive_integer, positive_number

if TYPE_CHECKING:
    from calibration.int8 import Int8Options
    from splitmerge.package import Package

HELP = "Make a package's graphs of a reduced precision and hold their labels and scores against float32's."

_FP16_IMAGES, _FP16_AGREEMENT, _UNLABELLED_AGREEMENT = 4, 99.9, 99.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--package", type=Path, required=True, metavar="DIR", help="folder from `splitmerge export`")
    add("--precision", default="int8", help="int8 or fp16")
    add("--data", default="streets", help="streets, drive[:SEED], a folder of images, an image or a video")
    add("--images", type=positive_integer, metavar="N", help="how many of them (64 for int8, 4 for fp16)")
    add(
        "--min-agreement",
        type=positive_number,
        metavar="PERCENT",
        help="of the labels that must be float32's (fp16: 99.9; int8: 99.5 where the data has no labels)",
    )
    add("--keep", nargs="+", default=[], metavar="LAYER", help="convolutions that stay float32 (fp16)")
    add("--json", type=Path, metavar="FILE", help="write what was measured as JSON")
    int8 = parser.add_argument_group("int8")
    add = int8.add_argument
    add(
        "--method",
        default="auto",
        help="auto tries all and takes the best; minmax, entropy, mse, percentile-99.99 or any percentile-P",
    )
    add("--score-images", type=positive_integer, default=32, metavar="N", help="images to score on, others than those")
    add("--max-iou-drop", type=_points, default=0.1, metavar="POINTS", help="of mIoU that may be lost")
    add("--max-thin-drop", type=_points, default=0.3, metavar="POINTS", help="of IoU that any thin class may lose")
    add("--calibration-cache", type=Path, metavar="FILE", help="ranges to reuse or to make; in the package if absent")
    add("--rest", default="fp16", choices=("fp16", "fp32"), help="what everything but the int8 convolutions is")
    add(
        "--search-stride",
        type=positive_integer,
        default=2,
        metavar="N",
        help="rows and columns between the pixels that tries are scored on; the result is scored on all",
    )
    add("--sensitivity", action="store_true", help="score each layer alone in int8, needed or not")
    add("--picture", type=Path, metavar="FILE", help="PNG with each layer's cost; implies --sensitivity")
    add(
        "--tensorrt-cache",
        type=Path,
        metavar="FILE",
        help="write the ranges as TensorRT 10's calibrators read them, too",
    )
    add(
        "--convergence",
        type=Path,
        metavar="FILE",
        help="make no graphs: print how the ranges settle with the number of images, and draw it as PNG",
    )
    add("--force", action="store_true", help="write int8 even if more than allowed is lost")


def run(arguments: argparse.Namespace) -> int:
    from splitmerge.files import check_outputs
    from splitmerge.package import Package

    if arguments.precision not in ("fp16", "int8"):
        raise InputError(f"Graphs of precision {arguments.precision} cannot be made: give --precision int8 or fp16.")
    cache, convergence = arguments.calibration_cache, arguments.convergence
    check_outputs([arguments.json, arguments.picture, cache, convergence, arguments.tensorrt_cache])
    package = Package.open(arguments.package)
    if convergence is not None:
        return _convergence(arguments, package)
    return _fp16(arguments, package) if arguments.precision == "fp16" else _int8(arguments, package)


def _fp16(arguments: argparse.Namespace, package: "Package") -> int:
    from calibration.images import open_images
    from calibration.reduce import add_half
    from splitmerge.files import write_json

    images = open_images(arguments.data, package.manifest.input.size, arguments.images or _FP16_IMAGES)
    agreement = add_half(package, images, arguments.keep, (arguments.min_agreement or _FP16_AGREEMENT) / 100)
    print(
        f"fp16: {agreement.share:.4%} of the labels are those of fp32 ({agreement.differing:,} of "
        f"{agreement.pixels:,} pixels differ, {agreement.images} images)"
    )
    if arguments.json:
        write_json(
            arguments.json,
            {
                "precision": "fp16",
                "data": arguments.data,
                "images": agreement.images,
                "pixels": agreement.pixels,
                "differing": agreement.differing,
                "label_agreement": agreement.share,
                "kept_float32": arguments.keep,
            },
        )
    return 0


def _convergence(arguments: argparse.Namespace, package: "Package") -> int:
    from calibration.convergence import converge, convergence_table, draw_convergence
    from calibration.images import DEFAULT_IMAGES, open_images

    images = open_images(arguments.data, package.manifest.input.size, arguments.images or 2 * DEFAULT_IMAGES)
    convergence = converge(package, images)
    print(convergence_table(convergence))
    draw_convergence(convergence, arguments.convergence)
    return 0


def _int8(arguments: argparse.Namespace, package: "Package") -> int:
    from calibration.cache import made_from
    from calibration.cached import RangesSource, default_cache
    from calibration.images import DEFAULT_IMAGES, DataHash, open_images
    from calibration.int8 import add_int8
    from calibration.ranges import METHODS, check_methods
    from calibration.report import score_table
    from calibration.scored_images import fingerprint, scored_images
    from calibration.search import LEAST_SHARE
    from calibration.sensitivity import draw_sensitivity
    from calibration.tensorrt_cache import write_tensorrt_cache
    from splitmerge.files import write_json

    if arguments.keep:
        raise InputError("--keep is for fp16: with int8 the search finds the layers that stay out of it.")
    methods = METHODS if arguments.method == "auto" else check_methods([*METHODS, arguments.method])
    size, count = package.manifest.input.size, arguments.images or DEFAULT_IMAGES
    images = open_images(arguments.data, size, count)
    digest, used = DataHash(), set()
    for frame in images:
        digest.update(frame)
        used.add(fingerprint(frame))
    classes = len(package.manifest.classes)
    scored = scored_images(arguments.data, size, classes, used, count, arguments.score_images)
    print(f"scored on {scored.words}")
    cache = arguments.calibration_cache or default_cache(package)
    made = made_from(package, arguments.data, digest, methods)
    source = RangesSource(package, images, made, cache, arguments.calibration_cache is not None, print)
    report = add_int8(package, source, scored, _options(arguments, bool(scored.truths)))
    print(score_table(report.float32, {f"int8, {report.recipe.words}": report.measured}))
    left = f"; {', '.join(sorted(report.recipe.left_out))} in {arguments.rest}" if report.recipe.left_out else ""
    print(f"int8: {report.share:.2%} of the multiply-adds{left}")
    if arguments.picture:
        draw_sensitivity(report.alone, arguments.picture)
    if arguments.tensorrt_cache:
        write_tensorrt_cache(arguments.tensorrt_cache, source.ranges().by_tensor(report.recipe.method))
    if arguments.json:
        facts = {"precision": "int8", "data": arguments.data, "rest": arguments.rest, "scored_on": scored.words}
        write_json(arguments.json, facts | report.facts())
    if not report.written:
        raise VerificationError(
            f"No mixed precision with {LEAST_SHARE:.0%} of the multiply-adds in int8 meets the budget (the nearest: "
            f"{'; '.join(report.exceeded)}), so nothing was written: allow more with --max-iou-drop, --max-thin-drop "
            "or --min-agreement, or take it as it is with --force."
        )
    return 0


def _options(arguments: argparse.Namespace, labelled: bool) -> "Int8Options":
    """The budget is IoU where there is ground truth. Without, a drop of IoU is not known and labels must be equal."""
    from calibration.int8 import Int8Options
    from calibration.score import Budget

    if labelled:
        least = arguments.min_agreement and arguments.min_agreement / 100
        budget = Budget(arguments.max_iou_drop, arguments.max_thin_drop, least)
    else:
        budget = Budget(None, None, (arguments.min_agreement or _UNLABELLED_AGREEMENT) / 100)
    wanted = arguments.sensitivity or arguments.picture is not None
    return Int8Options(arguments.method, budget, arguments.rest, wanted, arguments.force, arguments.search_stride)


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of points: give one from 0 to 100, such as 0.1")
    return value
