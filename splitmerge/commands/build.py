"""`splitmerge build`: a package's graphs become engines."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from splitmerge.errors import InputError
from splitmerge.options import positive_integer, whole_number

if TYPE_CHECKING:
    from engines.build import BuiltEngine
    from engines.compiler import GpuOptions

HELP = "Compile a package's graphs into engines for this machine, or ahead of time for NVIDIA GPUs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--package", type=Path, required=True, metavar="DIR", help="folder from `splitmerge export`")
    add("--backend", default="auto", metavar="NAME", help="auto, onnxruntime, tensorrt or tensorrt-rtx")
    add("--precision", default="fp32", help="which of the package's graphs to compile")
    add(
        "--form",
        default="auto",
        choices=("auto", "plain", "cpu", "native"),
        help="on a CPU: plain graphs, those of `export --target cpu`, the trunk (or a network without a cut) compiled "
        "natively, or what is fastest",
    )
    add("--compute-capability", nargs="+", metavar="X.Y", help="GPUs to build for ahead of time (tensorrt-rtx)")
    add("--device", type=whole_number, metavar="N", help="GPU to build on; one of each kind that is here if absent")
    add(
        "--min-batches", type=positive_integer, default=1, metavar="N", help="fewest split batches in one run of a plan"
    )
    add("--opt-batches", type=positive_integer, default=1, metavar="N", help="split batches that a plan is tuned for")
    add("--max-batches", type=positive_integer, default=4, metavar="N", help="most split batches in one run of a plan")
    add("--workspace", type=positive_integer, metavar="MiB", help="scratch memory of a plan; no limit if absent")
    add(
        "--optimization-level",
        type=int,
        choices=range(6),
        metavar="0..5",
        help="0 builds quickest, 5 makes the quickest plans (trtexec's --builderOptimizationLevel)",
    )
    add(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="where to keep what TensorRT measures, for later builds; in the package's engines folder if absent",
    )
    add(
        "--hardware-compatibility",
        default="none",
        choices=("none", "ampere-plus", "same-compute-capability"),
        help="GPUs, besides the one that is built on, that plans run on",
    )
    add(
        "--version-compatible", action="store_true", help="plans also run with later TensorRT of the same major version"
    )
    add(
        "--precision-constraints",
        default="obey",
        choices=("obey", "prefer"),
        help="obey: fail where a convolution comes out in another type than its graph asks for; prefer: say so",
    )
    add("--json", type=Path, metavar="FILE", help="write the table as JSON, with the layers of every plan")


def run(arguments: argparse.Namespace) -> int:
    from engines.backends import choose_backend
    from engines.build import build_engines, refuse_gpu_options
    from splitmerge.files import check_outputs, write_json
    from splitmerge.package import Package

    check_outputs([arguments.json, arguments.timing_cache])
    package = Package.open(arguments.package)
    backend, why = choose_backend(arguments.backend)
    print(f"backend: {backend} ({why})")
    all_options = _options(arguments, backend)
    built: list[BuiltEngine] = []
    measured = None
    if backend == "onnxruntime" and arguments.precision == "fp32":
        from runtime.cpu_form import build_fastest

        refuse_gpu_options(all_options[0])
        built, measured = build_fastest(package, arguments.form)
    else:
        if arguments.form != "auto":
            raise InputError(
                f"--form {arguments.form} chooses among fp32 graphs for CPUs, and {arguments.precision} for {backend} "
                "is built: leave it out."
            )
        for options in all_options:
            built.extend(build_engines(package, backend, arguments.precision, options))
    print("\n".join(map(_row, built)))
    if measured:
        print(f"measured here: {measured}")
    if arguments.json:
        engines = [{**asdict(engine), "path": str(engine.path)} for engine in built]
        write_json(
            arguments.json,
            {
                "backend": backend,
                "reason": why,
                "precision": arguments.precision,
                "measured": measured,
                "engines": engines,
            },
        )
    return 0


def _options(arguments: argparse.Namespace, backend: str) -> "list[GpuOptions]":
    """One set of options for each kind of GPU to build for; one for the CPU."""
    from engines.compiler import GpuOptions

    batches = (arguments.min_batches, arguments.opt_batches, arguments.max_batches)
    if sorted(batches) != list(batches):
        raise InputError(
            f"--min-batches, --opt-batches and --max-batches are {batches[0]}, {batches[1]} and {batches[2]}: "
            "give them in rising order."
        )
    return [
        GpuOptions(
            capability,
            *batches,
            workspace_mib=arguments.workspace,
            optimization_level=arguments.optimization_level,
            timing_cache=arguments.timing_cache,
            hardware_compatibility=arguments.hardware_compatibility,
            version_compatible=arguments.version_compatible,
            device=device,
            precision_constraints=arguments.precision_constraints,
        )
        for capability, device in _targets(arguments.compute_capability, arguments.device, backend)
    ]


def _targets(capabilities: list[str] | None, device: int | None, backend: str) -> list[tuple[str | None, int]]:
    """Pairs of a compute capability to build for ahead of time, or None, and the GPU to build on."""
    if capabilities and device is not None:
        raise InputError(
            f"--device {device} builds for the GPU at hand and --compute-capability {' '.join(capabilities)} ahead of "
            "time: give one of them."
        )
    if capabilities:
        return [(capability, 0) for capability in dict.fromkeys(capabilities)]
    if device is not None or backend == "onnxruntime":
        return [(None, device or 0)]
    from engines.machine import find_gpus

    first: dict[str, int] = {}
    for gpu in find_gpus():
        first.setdefault(gpu.capability, gpu.index)
    return [(None, index) for index in first.values()] or [(None, 0)]  # without a GPU, building says what is missing


def _row(engine: "BuiltEngine") -> str:
    place = f"{engine.path.parent.name}/{engine.path.name}"
    return f"{place:<40} {engine.size / 2**20:>8.1f} MiB {engine.seconds:>7.2f} s  {engine.notes}"
