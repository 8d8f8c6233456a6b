"""This project as a contestant: what `splitmerge run` does with a frame."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import Contender
from runtime.cpu_form import Sharing, remembered
from runtime.executor import Executor
from splitmerge.package import Package

__all__ = ["executor"]


def executor(folder: Path, **arguments: Any) -> Contender:
    """An executor of a package with engines, with what was found fastest when they were built, where that was looked
    for; `arguments` are the executor's own. It lives as long as its process.
    """
    package = Package.open(folder)
    options = {**asdict(remembered(package) or Sharing()), **arguments}
    made = Executor(package, **options)
    return Contender(made.segment, notes={**options, **made.facts})
