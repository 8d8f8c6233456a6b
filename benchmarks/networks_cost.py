"""What a network of `benchmarks.networks` costs: parameters and multiply-adds counted, time and memory measured."""

from bisect import bisect_left
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine
from benchmarks.streaming import row_of
from engines.build import build_engines
from runtime.schedule import DEFAULT_CONTEXTS
from splitmerge.errors import InputError
from splitmerge.files import write_json
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Package
from training.models import create_model

__all__ = ["measure", "multiply_adds", "parameters_of", "width_of"]

_WIDEST = 256


def width_of(name: str, parameters: int) -> int:
    """The width at which a network of 19 classes comes nearest to so many parameters."""
    above = bisect_left(range(1, _WIDEST), parameters, key=lambda width: parameters_of(name, width)) + 1
    return min((max(1, above - 1), above), key=lambda width: abs(parameters_of(name, width) - parameters))


def parameters_of(name: str, width: int) -> int:
    """Of a network of 19 classes."""
    with torch.device("meta"):  # shapes alone: no weights are drawn
        return sum(p.numel() for p in create_model(name, len(CITYSCAPES), width).parameters())


def multiply_adds(name: str, width: int, size: tuple[int, int]) -> int:
    """Of one frame of `size` (height, width) at inference; nothing is computed."""
    with torch.device("meta"):
        model, frame = create_model(name, len(CITYSCAPES), width).eval(), torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(frame)
    return int(counter.get_total_flops()) // 2


def measure(folder: Path, frames: int) -> None:
    """Write what a frame takes to `measured.json` in a network's folder: streamed and whole where there is a cut.

    Raises InputError where there is no scored network, EngineError where a row fails.
    """
    if not (folder / "scores.json").exists():
        raise InputError(f"{folder} holds no network that is trained and scored: run without --measure first.")
    package = Package.open(folder / "package")
    parts, modes = ["model"], ["whole"]
    if package.manifest.cut:
        parts, modes = ["model", "stem", "trunk"], ["streamed", "whole"]
    build_engines(package, parts=parts)
    labels = folder / "labels.npy"
    rows = {mode: row_of(package, mode, DEFAULT_CONTEXTS, frames, labels) for mode in modes}
    labels.unlink()
    write_json(folder / "measured.json", {"machine": machine(), **rows})
