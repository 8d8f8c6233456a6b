"""This project as a contestant: what `splitmerge run` does with a frame."""

from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import Contender
from runtime.executor import Executor
from splitmerge.package import Package

__all__ = ["executor"]


def executor(folder: Path, **arguments: Any) -> Contender:
    """An executor of a package with engines; `arguments` are the executor's own. It lives as long as its process."""
    made = Executor(Package.open(folder), **arguments)
    return Contender(made.segment, notes=made.facts)
