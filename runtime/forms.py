"""Which form of a network is faster here: its split batches, or its dilated convolutions.

Both compute the same labels. Which of them a backend has the better kernels for is not to be known but by timing it.
"""

import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from engines.backends import choose_backend
from engines.build import build_engines
from runtime.executor import Executor
from splitmerge.package import FormTimes, Package

__all__ = ["ROUNDS", "time_forms"]

ROUNDS = 5


def time_forms(packages: Mapping[str, Package], backend: str = "auto", rounds: int = ROUNDS) -> tuple[FormTimes, str]:
    """Build and run packages of one network by form, in turn, and say which has the smallest median.

    A form that export found too large to be run whole is left out, unless it is cut; the first one never is. Raises
    EngineError where a package does not build here.
    """
    backend, _ = choose_backend(backend)
    first, *_ = packages
    runnable = [form for form, package in packages.items() if form == first or _fits(package)]
    taken: dict[str, list[float]] = {form: [] for form in runnable}
    with ExitStack() as resources:
        executors = {}
        for form in runnable:
            build_engines(packages[form], backend)
            executors[form] = resources.enter_context(Executor(packages[form], backend=backend))
        frame = np.random.default_rng(0).integers(0, 256, (*packages[first].manifest.input.size, 3), np.uint8)
        for turn in range(rounds + 1):
            for form, executor in executors.items():  # in turn, so that whatever slows the machine slows them alike
                start = time.perf_counter()
                executor.segment(frame)
                if turn:  # the first is to warm up
                    taken[form].append((time.perf_counter() - start) * 1e3)
    medians = {form: round(statistics.median(taken[form]), 3) if form in taken else None for form in packages}
    fastest = min(taken, key=lambda form: statistics.median(taken[form]))
    return FormTimes(backend, rounds, medians), fastest


def _fits(package: Package) -> bool:
    return package.manifest.cut is not None or not package.manifest.verification["full_size"].startswith("not run")
