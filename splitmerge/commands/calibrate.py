"""`splitmerge calibrate`: a package gets graphs of a reduced precision."""

import argparse
from pathlib import Path

from splitmerge.errors import InputError
from splitmerge.options import positive_integer, positive_number

HELP = "Make a package's graphs of a reduced precision and hold their labels against float32's."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--package", type=Path, required=True, metavar="DIR", help="folder from `splitmerge export`")
    parser.add_argument("--precision", default="fp16", help="fp16")
    parser.add_argument(
        "--data", default="streets", help="images to compare on: streets, drive[:SEED], or a folder with images/"
    )
    parser.add_argument("--images", type=positive_integer, default=4, metavar="N", help="how many of them")
    parser.add_argument(
        "--min-agreement",
        type=positive_number,
        default=99.9,
        metavar="PERCENT",
        help="of the labels that must be equal",
    )
    parser.add_argument("--keep", nargs="+", default=[], metavar="LAYER", help="convolutions that stay float32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the agreement as JSON")


def run(arguments: argparse.Namespace) -> int:
    from splitmerge.files import check_outputs, write_json
    from splitmerge.package import Package

    if arguments.precision != "fp16":
        raise InputError(f"Graphs of precision {arguments.precision} cannot be made yet: give --precision fp16.")
    check_outputs([arguments.json])
    package = Package.open(arguments.package)
    from calibration.reduce import add_half
    from training.data import open_dataset

    size, classes = package.manifest.input.size, package.manifest.classes
    dataset = open_dataset(arguments.data, size, arguments.images, num_classes=len(classes))
    frames = (dataset[index][0] for index in range(min(len(dataset), arguments.images)))
    agreement = add_half(package, frames, arguments.keep, arguments.min_agreement / 100)
    print(
        f"{arguments.precision}: {agreement.share:.4%} of the labels are those of fp32 ({agreement.differing:,} of "
        f"{agreement.pixels:,} pixels differ, {agreement.images} images)"
    )
    if arguments.json:
        write_json(
            arguments.json,
            {
                "precision": arguments.precision,
                "data": arguments.data,
                "images": agreement.images,
                "pixels": agreement.pixels,
                "differing": agreement.differing,
                "label_agreement": agreement.share,
                "kept_float32": arguments.keep,
            },
        )
    return 0
