"""`splitmerge calibrate`: a package gets graphs of a reduced precision."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitmerge.errors import InputError, VerificationError
from splitmerge.options import positive_integer, positive_number

if TYPE_CHECKING:
    from calibration.int8_report import Int8Options, Int8Report
    from splitmerge.package import Package

HELP = "Make a package's graphs of a reduced precision and hold their labels and scores against float32's."

_FP16_IMAGES, _FP16_AGREEMENT, _INT8_AGREEMENT = 4, 99.95, 99.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--package", type=Path, required=True, metavar="DIR", help="folder from `splitmerge export`")
    add("--precision", default="int8", help="int8 or fp16")
    add(
        "--data",
        help="streets (where its classes fit, if left out), drive[:SEED], KIND:DIR, a folder of images, an image,"
        " a video",
    )
    add("--images", type=positive_integer, metavar="N", help="how many of them (64 for int8, 4 for fp16)")
    add(
        "--min-agreement",
        type=positive_number,
        metavar="PERCENT",
        help="of the labels that must be float32's (fp16: 99.95; int8: 99.5)",
    )
    add("--keep", nargs="+", default=[], metavar="LAYER", help="convolutions that stay float32 (fp16)")
    add("--json", type=Path, metavar="FILE", help="write what was measured as JSON")
    int8 = parser.add_argument_group("int8")
    only: dict[str, tuple[str, Any]] = {}

    def add_int8(name: str, **options: Any) -> None:
        action = int8.add_argument(name, **options)
        only[action.dest] = name, action.default

    add_int8(
        "--method",
        default="auto",
        help="auto tries all and takes the best; minmax, entropy, mse, percentile-99.99 or any percentile-P",
    )
    add_int8(
        "--score-images", type=positive_integer, default=32, metavar="N", help="images to score on, others than those"
    )
    add_int8("--max-iou-drop", type=_points, default=0.1, metavar="POINTS", help="of mIoU that may be lost")
    add_int8("--max-thin-drop", type=_points, default=0.3, metavar="POINTS", help="of IoU that any thin class may lose")
    add_int8(
        "--max-boundary-drop", type=_points, default=0.3, metavar="POINTS", help="of boundary IoU that may be lost"
    )
    add_int8("--thin", nargs="+", metavar="CLASS", help="classes that count as thin (Cityscapes' where not given)")
    add_int8(
        "--calibration-cache", type=Path, metavar="FILE", help="ranges to reuse or to make; in the package if absent"
    )
    add_int8("--rest", default="fp16", choices=("fp16", "fp32"), help="what everything but the int8 convolutions is")
    add_int8(
        "--search-stride",
        type=positive_integer,
        default=2,
        metavar="N",
        help="rows and columns between the pixels that tries are scored on; the result is scored on all",
    )
    add_int8("--sensitivity", action="store_true", help="score each layer alone in int8, needed or not")
    add_int8("--picture", type=Path, metavar="FILE", help="PNG with each layer's cost; implies --sensitivity")
    add_int8(
        "--tensorrt-cache",
        type=Path,
        metavar="FILE",
        help="write the ranges as TensorRT 10's calibrators read them, too",
    )
    add_int8("--tensorrt-version", default="10.3.0", metavar="10.X.Y", help="of the TensorRT that will read them")
    add_int8(
        "--convergence",
        type=Path,
        metavar="FILE",
        help="make no graphs: print how the ranges settle with the number of images, and draw it as PNG",
    )
    add_int8("--force", action="store_true", help="write int8 even if more than allowed is lost")
    parser.set_defaults(int8_only=only)


def run(arguments: argparse.Namespace) -> int:
    from splitmerge.files import check_outputs
    from splitmerge.package import Package

    if arguments.precision not in ("fp16", "int8"):
        raise InputError(f"Graphs of precision {arguments.precision} cannot be made: give --precision int8 or fp16.")
    if arguments.precision == "fp16":
        _refuse_int8_only(arguments)
    cache, convergence = arguments.calibration_cache, arguments.convergence
    check_outputs([arguments.json, arguments.picture, cache, convergence, arguments.tensorrt_cache])
    for picture in (arguments.picture, convergence):
        _check_picture(picture)
    package = Package.open(arguments.package)
    arguments.data = _data(arguments, package)
    if convergence is not None:
        return _convergence(arguments, package)
    return _fp16(arguments, package) if arguments.precision == "fp16" else _int8(arguments, package)


def _fp16(arguments: argparse.Namespace, package: "Package") -> int:
    from calibration.images import Contrasting, open_images
    from calibration.reduce import add_half
    from splitmerge.files import write_json

    images = open_images(arguments.data, package.manifest.input.size, arguments.images or _FP16_IMAGES)
    least = (arguments.min_agreement or _FP16_AGREEMENT) / 100
    report = add_half(package, Contrasting(images), arguments.keep, least, print)
    agreement, values = report.agreement, report.overall
    print(
        f"fp16: {agreement.share:.4%} of the labels are those of fp32 ({agreement.differing:,} of "
        f"{agreement.pixels:,} pixels differ, {agreement.images} images); values up to {values.largest:.3g}, "
        f"{values.subnormal / max(1, values.nonzero):.2%} of them below float16's full precision, "
        f"{values.flushed / max(1, values.nonzero):.2%} below all that it holds"
    )
    if arguments.json:
        write_json(arguments.json, {"precision": "fp16", "data": arguments.data, **report.facts()})
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
    from calibration.images import DEFAULT_IMAGES, Contrasting, DataHash, open_images
    from calibration.int8 import add_int8
    from calibration.ranges import METHODS, check_methods
    from calibration.report import score_table, share_line
    from calibration.scored_images import fingerprint, scored_images
    from calibration.sensitivity import draw_sensitivity
    from calibration.tensorrt_cache import check_tensorrt_version, write_tensorrt_cache
    from splitmerge.files import write_json
    from training.data import check_classes

    if arguments.keep:
        raise InputError("--keep is for fp16: with int8 the search finds the layers that stay out of it.")
    check_tensorrt_version(arguments.tensorrt_version)
    check_classes(arguments.data, package.manifest.classes, str(arguments.package))
    methods = METHODS if arguments.method == "auto" else check_methods([*METHODS, arguments.method])
    size, count = package.manifest.input.size, arguments.images or DEFAULT_IMAGES
    images = open_images(arguments.data, size, count)
    digest, used = DataHash(), set()
    for frame in Contrasting(images):
        digest.update(frame)
        used.add(fingerprint(frame))
    classes = len(package.manifest.classes)
    scored = scored_images(arguments.data, size, classes, used, count, arguments.score_images)
    print(f"scored on {scored.words}")
    cache = arguments.calibration_cache or default_cache(package)
    made = made_from(package, arguments.data, digest, methods)
    source = RangesSource(package, images, made, cache, arguments.calibration_cache is not None, print)
    report = add_int8(package, source, scored, _options(arguments, package, bool(scored.truths)))
    print(score_table(report.float32, {f"int8, {report.recipe.words}": report.measured}))
    print(share_line(report.share, report.recipe.left_out, arguments.rest))
    if arguments.picture:
        draw_sensitivity(report.alone, arguments.picture)
    if arguments.tensorrt_cache and report.written:
        thresholds = source.ranges().by_tensor(report.recipe.method)
        write_tensorrt_cache(arguments.tensorrt_cache, thresholds, arguments.tensorrt_version)
    if arguments.json:
        facts = {"precision": "int8", "data": arguments.data, "rest": arguments.rest, "scored_on": scored.words}
        write_json(arguments.json, facts | report.facts())
    if not report.written:
        raise VerificationError(_refusal(report))
    return 0


def _refusal(report: "Int8Report") -> str:
    from calibration.search import LEAST_SHARE

    return (
        f"None of the {len(report.steps)} mixed precisions that the search tried, layer by layer and not in every "
        f"combination, with at least {LEAST_SHARE:.0%} of the multiply-adds in int8, meets the budget (the nearest: "
        f"{'; '.join(report.exceeded)}), so nothing was written: allow more with --max-iou-drop, --max-thin-drop, "
        "--max-boundary-drop or --min-agreement, or take it as it is with --force."
    )


def _options(arguments: argparse.Namespace, package: "Package", labelled: bool) -> "Int8Options":
    """The budget is IoU and equal labels. Without ground truth a drop of IoU is not known and equal labels are all."""
    from calibration.int8_report import Int8Options
    from calibration.score import Budget
    from splitmerge.labels import THIN_CLASSES

    agreement = (arguments.min_agreement or _INT8_AGREEMENT) / 100
    budget = Budget(None, None, None, agreement)
    if labelled:
        budget = Budget(
            miou_drop=arguments.max_iou_drop,
            thin_drop=arguments.max_thin_drop,
            boundary_drop=arguments.max_boundary_drop,
            agreement=agreement,
        )
    names = [entry.name for entry in package.manifest.classes]
    for name in arguments.thin or ():
        if name not in names:
            raise InputError(f"--thin names {name!r}, and the package's classes are {', '.join(names)}: name of those.")
    return Int8Options(
        method=arguments.method,
        budget=budget,
        rest=arguments.rest,
        sensitivity=arguments.sensitivity or arguments.picture is not None,
        force=arguments.force,
        search_stride=arguments.search_stride,
        thin=tuple(arguments.thin or THIN_CLASSES),
    )


def _data(arguments: argparse.Namespace, package: "Package") -> str:
    """What to calibrate with: rendered sets only where their labels are the package's classes, or no labels count."""
    from splitmerge.labels import CITYSCAPES
    from training.data import is_rendered

    data: str = arguments.data or "streets"
    names = [entry.name for entry in package.manifest.classes]
    unlabelled = arguments.data and (arguments.precision == "fp16" or arguments.convergence)
    if is_rendered(data) and not unlabelled and names != [entry.name for entry in CITYSCAPES]:
        some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(
            f"{package.folder} has the {len(names)} classes {some}, and {data} is labelled with Cityscapes' "
            f"{len(CITYSCAPES)}: give images of its own with --data (a folder with images/ and labels/, or any images)."
        )
    return data


def _refuse_int8_only(arguments: argparse.Namespace) -> None:
    for dest, (name, default) in arguments.int8_only.items():
        if dest != "convergence" and getattr(arguments, dest) != default:
            raise InputError(f"{name} is for int8 and fp16 was asked for: leave it out, or give --precision int8.")


def _check_picture(path: Path | None) -> None:
    import cv2

    if path is not None and not cv2.haveImageWriter(str(path)):
        raise InputError(f"{path} does not end as a picture that can be written does: name a .png file.")


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of points: give one from 0 to 100, such as 0.1")
    return value
