"""`splitmerge export`: a checkpoint becomes a package of verified ONNX graphs."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.options import height_and_width

if TYPE_CHECKING:
    from splitmerge.package import Package

HELP = "Export a checkpoint to a package: ONNX graphs, verified against PyTorch, that engines are built from."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="weights from `splitmerge train`"
    )
    parser.add_argument(
        "--size",
        type=height_and_width,
        required=True,
        metavar="HxW",
        help="height and width of the frames, such as 512x1024",
    )
    parser.add_argument("--package", type=Path, required=True, metavar="DIR", help="folder to write, or to replace")
    parser.add_argument(
        "--cut", type=int, metavar="M", help="split level between stem and trunk (default 2); 0 keeps one graph"
    )
    parser.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="the checkpoint holds your own network, made by this code of yours"
    )
    parser.add_argument(
        "--form",
        choices=("own", "split", "dilated", "auto"),
        default="own",
        help="dilated convolutions as split batches, or split batches as dilation; auto times both here and keeps the "
        "faster",
    )
    parser.add_argument(
        "--output-stride",
        type=int,
        metavar="N",
        help="compute logits at 1/N of the frame's height and width, below the network's own, without training: 1, 2, "
        "4, 8 or 16",
    )
    parser.add_argument(
        "--target",
        choices=("any", "cpu"),
        default="any",
        help="cpu adds a form of the graphs that CPUs are faster with, which `splitmerge build` takes where it is",
    )
    parser.add_argument("--logits", action="store_true", help="return float32 logits beside the labels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verification's numbers here, too")


def run(arguments: argparse.Namespace) -> int:
    from export.package import existing_parent
    from export.summary import print_summary, summary_json
    from splitmerge.files import writable_folder, write_json

    if arguments.json:
        writable_folder(existing_parent(arguments.json))
    package = _exported_faster(arguments) if arguments.form == "auto" else _exported(arguments, arguments.form)
    print_summary(package)
    if arguments.target == "cpu" and not package.manifest.cpu:
        print("for CPUs: no form of its own, since neither its convolutions nor its labels would be faster")
    if arguments.json:
        write_json(arguments.json, summary_json(package))
    return 0


def _exported(arguments: argparse.Namespace, form: str, folder: Path | None = None) -> "Package":
    from export.graphs import Rewriting
    from export.package import export_package

    return export_package(
        arguments.checkpoint,
        arguments.size,
        folder or arguments.package,
        arguments.cut,
        arguments.logits,
        arguments.model,
        Rewriting(form, arguments.output_stride, arguments.target),
    )


def _exported_faster(arguments: argparse.Namespace) -> "Package":
    """Both forms, timed here, of which the faster becomes the package."""
    from export.package import check_place, keep_package
    from runtime.forms import time_forms

    check_place(arguments.package)
    with tempfile.TemporaryDirectory() as scratch:
        packages = {form: _exported(arguments, form, Path(scratch) / form) for form in ("split", "dilated")}
        times, fastest = time_forms(packages)
        return keep_package(packages[fastest], arguments.package, times)
