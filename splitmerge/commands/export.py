"""`splitmerge export`: a checkpoint becomes a package of verified ONNX graphs."""

import argparse
from pathlib import Path

from splitmerge.options import height_and_width

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
        "--cut", type=int, default=2, metavar="M", help="split level between stem and trunk; 0 keeps one graph"
    )
    parser.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="the checkpoint holds your own network, made by this code of yours"
    )
    parser.add_argument("--logits", action="store_true", help="return float32 logits beside the labels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verification's numbers here, too")


def run(arguments: argparse.Namespace) -> int:
    from export.package import existing_parent, export_package
    from export.summary import print_summary, summary_json
    from splitmerge.files import writable_folder, write_json

    if arguments.json:
        writable_folder(existing_parent(arguments.json))
    package = export_package(
        arguments.checkpoint, arguments.size, arguments.package, arguments.cut, arguments.logits, arguments.model
    )
    print_summary(package)
    if arguments.json:
        write_json(arguments.json, summary_json(package))
    return 0
