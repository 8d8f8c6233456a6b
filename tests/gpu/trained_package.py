"""The network that comes with the repository, exported for small frames, with engines of every kind that runs here."""

from pathlib import Path

import numpy as np
from gpu_here import Trained

from engines.build import build_engines
from engines.compiler import GpuOptions
from export.package import export_package
from runtime.reference import Reference
from splitmerge.cli import main
from splitmerge.package import Package
from training.streets import Streets

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "smp18-streets.safetensors"
SIZE = (128, 256)
MOST_BATCHES = 4
FRAMES = 4


def make_trained_package(folder: Path, backends: list[str]) -> Trained:
    """A package with float32 and, where `splitmerge calibrate` makes them, float16 graphs, and their engines."""
    export_package(CHECKPOINT, SIZE, folder)
    main(["calibrate", "--package", str(folder), "--precision", "fp16", "--data", "streets", "--images", "2"])
    package = Package.open(folder)
    for backend in backends:
        for precision, parts in package.manifest.graphs.items():
            build_engines(package, backend, precision, GpuOptions(max_batches=MOST_BATCHES), list(parts))
    frames, reference = street_frames(), Reference(package)
    return Trained(package, frames, [reference.segment(frame) for frame in frames])


def street_frames() -> list[np.ndarray]:
    """Frames uint8 [H,W,3] that the network was not trained on."""
    streets = Streets("val", SIZE, FRAMES, seed=1)
    return [streets[index][0] for index in range(FRAMES)]


def agreement(labels: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Share of pixels with the same label."""
    return float(np.mean([np.mean(a == b) for a, b in zip(labels, expected, strict=True)]))
