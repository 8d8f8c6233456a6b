"""Peak memory and time of the whole graph against split batches streamed through the trunk.

    splitmerge bench --streaming --sizes 512x1024 1024x2048 --widths 16 --json build/streaming.json

exports SMP-18 with random weights, builds its engines and measures each row in a process of its own
(`streaming_row.py`). Memory is the process's high-water mark less what it held with its engines loaded and nothing run:
activations, and the buffers between stem and trunk. Linux only. Agreement is the share of pixels whose label is the
whole graph's. The whole graph is measured three times: with this project's memory settings for it
(engines/onnxruntime_engine.py), with those that stem and trunk have, and with ONNX Runtime's own defaults.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.high_water import CLEAR_REFS
from benchmarks.machine import machine
from benchmarks.script import run_script
from benchmarks.streaming_row import LABELLING
from engines.build import build_engines
from splitmerge.errors import EngineError, InputError
from splitmerge.files import check_outputs, write_json
from splitmerge.options import height_and_width, positive_integer, positive_number
from splitmerge.package import Package

ROOT = Path(__file__).parents[1]
SMALLEST = 32
"""Height and width of the smallest frame in pixels: one window of five split levels."""

_WIDEST_TENSORS = {"whole": 6, "whole-alike": 8, "whole-defaults": 10}
"""The whole graph's peak in tensors of its last stage, rounded up (3, up to doubled by an arena that grows by doubling,
and what the memory pattern reserves besides): leaves out what will not fit."""


@dataclass(frozen=True)
class Case:
    """SMP-18 of `width` channels on frames of `height` x `width_pixels`."""

    height: int
    width_pixels: int
    width: int

    @property
    def name(self) -> str:
        return f"{self.height}x{self.width_pixels} width {self.width}"

    def whole_mib(self, mode: str) -> float:
        """What the whole graph will about need; 0 for modes that stream."""
        return _WIDEST_TENSORS.get(mode, 0) * self.height * self.width_pixels * 8 * self.width * 4 / 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, for this script and for `splitmerge bench --streaming`."""
    parser.add_argument(
        "--sizes", nargs="+", type=height_and_width, default=[(512, 1024), (1024, 2048)], metavar="HxW", help="frames"
    )
    parser.add_argument(
        "--widths", nargs="+", type=positive_integer, default=[16], help="channels of SMP-18's first stage"
    )
    parser.add_argument(
        "--contexts", nargs="+", type=positive_integer, default=[1, 2], help="executions of the trunk at once"
    )
    parser.add_argument(
        "--frames", type=positive_integer, default=3, help="frames per row; the first is reported apart"
    )
    parser.add_argument("--limit-gib", type=positive_number, default=20, help="leave out a whole graph that needs more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the machine as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure every size and width, print a table."""
    check_outputs([arguments.json])
    check_machine()
    cases = [Case(*_checked(size), width) for width in arguments.widths for size in arguments.sizes]
    rows: list[dict[str, Any]] = []
    print(f"{'frames':<20} {'run as':<36} {'MiB':>8} {'of whole':>9} {'first ms':>9} {'ms':>9} {'agreement':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            for row in _measure(case, Path(folder), arguments):
                rows.append({"height": case.height, "width_pixels": case.width_pixels, "width": case.width, **row})
                print(_text(case, row), flush=True)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "model": "smp18", "rows": rows})
    return 0


def main() -> int:
    return run_script("streaming", __doc__, add_arguments, run)


def check_machine() -> None:
    """Raises InputError where memory cannot be read."""
    if not CLEAR_REFS.exists():
        raise InputError(
            f"Peak memory is read from /proc, which {platform.system()} here does not have: run the benchmark on Linux."
        )


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if min(size) < SMALLEST:
        raise InputError(f"Frames of {size[0]}x{size[1]} are too small: give {SMALLEST}x{SMALLEST} or more.")
    return size


def _measure(case: Case, folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    package = _package(case, folder)
    plan = [
        ("whole", 1),
        ("whole-alike", 1),
        ("whole-defaults", 1),
        *(("streamed", contexts) for contexts in arguments.contexts),
        ("stem", 1),
        ("trunk", 1),
    ]
    whole: dict[str, Any] | None = None
    labels, limit = folder / "labels.npy", min(arguments.limit_gib, available_gib())
    for mode, contexts in plan:
        needed = case.whole_mib(mode) / 1024
        if needed > limit:
            yield {"mode": mode, "skipped": f"needs about {needed:.1f} GiB, {limit:.1f} GiB may be used"}
            continue
        row = row_of(package, mode, contexts, arguments.frames, labels)
        if mode == "whole":
            whole, expected = row, np.load(labels)
        if whole is not None:
            row["of_whole"] = round(row["activations_mib"] / whole["activations_mib"], 4)
            if mode in LABELLING:
                row["agreement"] = float((np.load(labels) == expected).mean())
        yield row


def available_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def _package(case: Case, folder: Path) -> Package:
    """Export in a process of its own: PyTorch's memory is given back before anything is measured."""
    target = folder / case.name.replace(" ", "-")
    code = f"from benchmarks.streaming import Case, export_random; export_random({case!r}, {str(target)!r})"
    child(["-c", code], f"Exporting {case.name}")
    package = Package.open(target)
    build_engines(package, parts=["model", "stem", "trunk"])
    return package


def export_random(case: Case, folder: str) -> None:
    """Export SMP-18 with seeded random weights as a package."""
    import torch

    from export.package import export_package
    from splitmerge.labels import CITYSCAPES
    from training.checkpoint import save_checkpoint
    from training.models import create_model

    torch.manual_seed(0)
    checkpoint = Path(folder).with_suffix(".safetensors")
    save_checkpoint(checkpoint, create_model("smp18", len(CITYSCAPES), case.width).eval(), "smp18", CITYSCAPES)
    export_package(checkpoint, (case.height, case.width_pixels), Path(folder))


def row_of(package: Package, mode: str, contexts: int, frames: int, labels: Path) -> dict[str, Any]:
    """A row of `benchmarks.streaming_row`; the labels are saved as an array. Raises EngineError where it fails."""
    arguments = [str(package.folder), mode, str(contexts), str(frames), str(labels)]
    row: dict[str, Any] = json.loads(
        child(["-m", "benchmarks.streaming_row", *arguments], f"Running {package.folder.name} {mode}")
    )
    return row


def child(arguments: list[str], what: str) -> str:
    """What a Python process of its own prints. Raises EngineError with its last words where it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1].rstrip(".")
        raise EngineError(f"{what} failed ({reason}): try a smaller size or width, or make room in memory and on disk.")
    return done.stdout


_NAMES = {
    "whole": "whole graph",
    "whole-alike": "whole graph, the trunk's settings",
    "whole-defaults": "whole graph, ONNX Runtime's defaults",
    "stem": "  stem alone",
    "trunk": "  one split batch alone",
}


def _text(case: Case, row: dict[str, Any]) -> str:
    name = _NAMES.get(row["mode"], f"streamed, {row.get('contexts')} context(s)")
    if "skipped" in row:
        return f"{case.name:<20} {name:<36} left out: {row['skipped']}"
    ratio = row.get("of_whole")
    share = "" if not ratio else f"{ratio:.1f}" if ratio > 1 else f"1/{1 / ratio:.1f}"
    agreement = f"{row['agreement']:.6f}" if "agreement" in row else ""
    return (
        f"{case.name:<20} {name:<36} {row['activations_mib']:>8.0f} {share:>9} {row['first_ms']:>9.0f} "
        f"{row['median_ms']:>9.0f} {agreement:>10}"
    )


if __name__ == "__main__":
    sys.exit(main())
