"""Which form of a network is faster here: its split batches, or its dilated convolutions.

Both compute the same labels. Which of them a backend has the better kernels for is not to be known but by timing it.
"""

from collections.abc import Mapping
from contextlib import ExitStack

from engines.backends import choose_backend
from engines.build import build_engines
from runtime.executor import Executor
from runtime.timing import in_turn, noise_frame
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
    with ExitStack() as resources:
        executors = {}
        for form in runnable:
            build_engines(packages[form], backend)
            executors[form] = resources.enter_context(Executor(packages[form], backend=backend))
        runs = {form: executor.segment for form, executor in executors.items()}
        taken = in_turn(runs, noise_frame(packages[first]), rounds)
    medians = {form: round(taken[form], 3) if form in taken else None for form in packages}
    fastest = min(taken, key=lambda form: taken[form])
    return FormTimes(backend, rounds, medians), fastest


def _fits(package: Package) -> bool:
    return package.manifest.cut is not None or not package.manifest.verification["full_size"].startswith("not run")
