"""What each stage takes on an NVIDIA GPU, beside what a user would run instead.

    python -m benchmarks.gpu --size 512x1024 --width 64

measures, one after the other in one process, the stem, one split batch and whole frames of SMP-18 with PyTorch (eager
in float32; automatic mixed precision with channels last; compiled), ONNX Runtime's CUDA provider and TensorRT (float32
and float16, 1 to 4 contexts, with and without CUDA graphs, whole graph in one plan), and the copies of frames and
labels. What is not installed or does not work is listed with the reason. Weights are random but for --checkpoint.

A whole frame's time is from a uint8 frame in host memory to uint8 labels in host memory; a group of its own leaves
these transfers out. Whole frames are run in the split form, streamed by contexts x chunks and in one go, and in the
dilated form. `90 %` and `99 %` are what so many of the runs stayed below, `fps/W` is by the power that NVML tells
meanwhile. `times` is how many times as fast a row is as PyTorch's eager float32 in the same group. TFLOP/s count two
operations for each multiply-add of the exported graphs, by the clock. Memory is what `benchmarks/gpu_rows.py` says.
Agreement is with the first row of whole frames. Writes benchmarks/results/GPU.json, after every row, so that what was
measured outlives a crash."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_copies import pycuda_copies, torch_copies
from benchmarks.gpu_machine import Tools, choose_gpu, describe, find_tools, free_memory
from benchmarks.gpu_options import BACKENDS, add_arguments
from benchmarks.gpu_power import power_meter
from benchmarks.gpu_rows import Row, Way, measure, ratios, slug, table
from engines.backends import find_backends
from engines.machine import Gpu
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, write_json
from splitmerge.package import Package

PLANS = ("tensorrt", "tensorrt-rtx")
RESULTS = Path(__file__).parent / "results"


@dataclass
class _Job:
    """What is measured, filled in as far as it can be had; `missing` says why the rest cannot."""

    gpu: Gpu
    tools: Tools
    frame: NDArray[np.uint8]
    network: Any = None
    packages: dict[str, Package] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        return run(parser.parse_args(arguments))
    except SplitmergeError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return error.exit_code


def run(arguments: argparse.Namespace) -> int:
    backend: str | None = getattr(arguments, "backend", None)  # of `splitmerge bench`
    only, plans = (list(BACKENDS[backend]), (backend,)) if backend else (arguments.only, PLANS)
    if min(arguments.size) < 32:
        raise InputError(f"Frames of {arguments.size} are smaller than the network's stride: give 32x32 or more.")
    gpu = choose_gpu(arguments.device)
    tools = find_tools(gpu)
    target = arguments.json or RESULTS / f"{slug(gpu.name)}.json"
    check_outputs([target])
    free = free_memory(gpu, tools)
    frame = np.random.default_rng(0).integers(0, 256, (*arguments.size, 3), np.uint8)
    job = _Job(gpu, tools, frame)
    meter, no_power = power_meter(gpu)
    job.missing += [no_power] if no_power else []
    command = ["splitmerge", *arguments.words] if backend else ["python", "-m", "benchmarks.gpu", *sys.argv[1:]]
    report = {**describe(gpu), "command": command, **_case(arguments)}
    rows: list[Row] = []
    expected: NDArray[np.uint8] | None = None
    with tempfile.TemporaryDirectory() as folder:
        _prepare(job, arguments, Path(folder), only)
        for way in _ways(job, only, plans):
            row, labels = measure(way, free, arguments.seconds, expected, meter)
            expected = labels if expected is None else expected
            rows.append(row)
            print(f"{way.group}: {row.name}: {row.skipped or f'{row.wall_ms:.3f} ms'}", file=sys.stderr, flush=True)
            _write(target, report, job, rows, complete=False)
    groups = list(dict.fromkeys(row.group for row in rows))
    rows.sort(key=lambda row: groups.index(row.group))
    _write(target, report, job, rows, complete=True)
    print(f"{gpu}, {arguments.size[0]}x{arguments.size[1]}, SMP of width {_case(arguments)['width']}")
    print(table(rows))
    for words in job.missing:
        print(f"left out: {words}")
    print(f"written: {target}")
    return 0


def _case(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "height": arguments.size[0],
        "width_pixels": arguments.size[1],
        "width": arguments.width if arguments.checkpoint is None else "the checkpoint's",
        "checkpoint": str(arguments.checkpoint) if arguments.checkpoint else None,
    }


def _prepare(job: _Job, arguments: argparse.Namespace, folder: Path, only: list[str]) -> None:
    """Network, packages and multiply-adds."""
    if only == ["copies"]:
        return
    try:
        import torch

        from splitmerge.labels import CITYSCAPES
        from training.checkpoint import load_checkpoint, save_checkpoint
        from training.models import create_model
        from training.networks.smp import SMPResNet

        torch.manual_seed(0)
        checkpoint = arguments.checkpoint or folder / "random.safetensors"
        if arguments.checkpoint is None:
            save_checkpoint(checkpoint, create_model("smp18", len(CITYSCAPES), arguments.width), "smp18", CITYSCAPES)
        job.network = load_checkpoint(checkpoint).model
    except ImportError as error:
        job.missing.append(f"everything but copies: networks are made with PyTorch ({error})")
        return
    if not isinstance(job.network, SMPResNet):
        raise InputError(f"{checkpoint} holds no Split-Merge Pooling network on a ResNet: give one, such as smp18.")
    try:
        _export(job, checkpoint, arguments.size, folder)
    except (SplitmergeError, ImportError) as error:  # PyTorch's rows do without
        job.missing.append(f"ONNX Runtime, TensorRT and TFLOP/s: no package ({type(error).__name__}: {error})")


def _export(job: _Job, checkpoint: Path, size: tuple[int, int], folder: Path) -> None:
    """A package of each form, with float16 graphs where they can be had."""
    from benchmarks.gpu_work import work_of
    from export.graphs import Rewriting
    from export.package import export_package

    print("exporting, verifying and turning into fp16 on the CPU ...", file=sys.stderr, flush=True)
    for form in ("split", "dilated"):
        try:
            package = export_package(checkpoint, size, folder / form, rewriting=Rewriting(form))
        except SplitmergeError as error:
            if form == "split":
                raise
            job.missing.append(f"the {form} form ({error})")
            continue
        job.work = job.work or work_of(package)
        job.packages[form] = _with_half(job, package)


def _with_half(job: _Job, package: Package) -> Package:
    try:
        from calibration.reduce import add_half

        add_half(package, [job.frame], least_agreement=0)  # how near it is stands in the rows
    except (SplitmergeError, ImportError) as error:  # the fp32 rows do without
        job.missing.append(f"fp16 graphs of the {package.manifest.form} form ({type(error).__name__}: {error})")
    return Package.open(package.folder)


def _ways(job: _Job, only: list[str], plans: tuple[str, ...] = PLANS) -> Iterator[Way]:
    """Every row in the order of measuring; what an engine needs is built on the way."""
    if "torch" in only and job.network is not None:
        if job.tools.torch is None:
            from benchmarks.gpu_torch import torch_ways

            yield from torch_ways(job.network, job.frame, job.work)
        else:
            yield Way("whole frame", "PyTorch", absent=job.tools.torch)
    for form, package in job.packages.items():
        if "onnxruntime" in only:
            from benchmarks.gpu_onnxruntime import onnxruntime_ways

            yield from onnxruntime_ways(package, job.frame, job.work, form)
        if "tensorrt" in only:
            yield from _tensorrt(job, package, form, plans)
    if "copies" in only:
        yield from _copies(job)


def _tensorrt(job: _Job, package: Package, form: str, plans: tuple[str, ...]) -> Iterator[Way]:
    found = find_backends()
    for backend in plans:
        if found[backend].obstacle:
            yield Way("whole frame", backend, absent=found[backend].obstacle)
            continue
        from benchmarks.gpu_tensorrt import tensorrt_ways

        yield from tensorrt_ways(package, backend, job.gpu.index, job.frame, job.work, form)


def _copies(job: _Job) -> Iterator[Way]:
    size = (job.frame.shape[0], job.frame.shape[1])
    if job.tools.pycuda is None:
        from engines.cuda import CudaDevice

        device = CudaDevice(job.gpu)
        yield from pycuda_copies(device, size)
        device.close()
    else:
        yield Way("frame to the GPU", "pycuda", absent=job.tools.pycuda)
        yield from torch_copies(size)


def _write(target: Path, report: dict[str, Any], job: _Job, rows: list[Row], complete: bool) -> None:
    values = [
        {**row.to_json(), **({"times": round(ratio, 3)} if ratio else {})}
        for row, ratio in zip(rows, ratios(rows), strict=True)
    ]
    write_json(
        target,
        {**report, "complete": complete, "multiply_adds": job.work, "missing": job.missing, "rows": values},
    )


if __name__ == "__main__":
    sys.exit(main())
