"""`splitmerge build`: a package's graphs become engines."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.errors import InputError
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from engines.build import BuiltEngine
    from engines.compiler import GpuOptions

HELP = "Compile a package's graphs into engines for this machine, or ahead of time for NVIDIA GPUs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--package", type=Path, required=True, metavar="DIR", help="folder from `splitmerge export`")
    parser.add_argument("--backend", default="auto", metavar="NAME", help="auto, onnxruntime, tensorrt or tensorrt-rtx")
    parser.add_argument("--precision", default="fp32", help="which of the package's graphs to compile")
    parser.add_argument(
        "--compute-capability", nargs="+", metavar="X.Y", help="GPUs to build for ahead of time (tensorrt-rtx)"
    )
    parser.add_argument(
        "--min-batches", type=positive_integer, default=1, metavar="N", help="fewest split batches in one run of a plan"
    )
    parser.add_argument(
        "--opt-batches", type=positive_integer, default=1, metavar="N", help="split batches that a plan is tuned for"
    )
    parser.add_argument(
        "--max-batches", type=positive_integer, default=4, metavar="N", help="most split batches in one run of a plan"
    )
    parser.add_argument(
        "--workspace",
        type=positive_integer,
        metavar="MiB",
        help="scratch memory that a plan may use; no limit if absent",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    from engines.backends import choose_backend
    from engines.build import build_engines
    from splitmerge.files import check_outputs, write_json
    from splitmerge.package import Package

    check_outputs([arguments.json])
    package = Package.open(arguments.package)
    backend, why = choose_backend(arguments.backend)
    print(f"backend: {backend} ({why})")
    built = []
    for options in _options(arguments):
        for engine in build_engines(package, backend, arguments.precision, options):
            print(_row(engine))
            built.append(engine)
    if arguments.json:
        engines = [{**asdict(engine), "path": str(engine.path)} for engine in built]
        write_json(
            arguments.json, {"backend": backend, "reason": why, "precision": arguments.precision, "engines": engines}
        )
    return 0


def _options(arguments: argparse.Namespace) -> "list[GpuOptions]":
    """One set of options for each GPU named, or one for the GPU at hand."""
    from engines.compiler import GpuOptions

    batches = (arguments.min_batches, arguments.opt_batches, arguments.max_batches)
    if sorted(batches) != list(batches):
        raise InputError(
            f"--min-batches, --opt-batches and --max-batches are {batches[0]}, {batches[1]} and {batches[2]}: "
            "give them in rising order."
        )
    return [
        GpuOptions(capability, *batches, workspace_mib=arguments.workspace)
        for capability in arguments.compute_capability or [None]
    ]


def _row(engine: "BuiltEngine") -> str:
    place = f"{engine.path.parent.name}/{engine.path.name}"
    return f"{place:<40} {engine.size / 2**20:>8.1f} MiB {engine.seconds:>7.2f} s  {engine.notes}"
