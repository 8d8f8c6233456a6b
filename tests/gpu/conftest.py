"""One exported and built package for all GPU tests (building takes minutes), run with each backend and precision."""

from pathlib import Path

import pytest
from gpu_here import Trained, backends_here, backends_or_skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    backends = backends_or_skip()
    from trained_package import make_trained_package

    folder: Path = tmp_path_factory.mktemp("trained") / "smp18"
    return make_trained_package(folder, backends)


@pytest.fixture(params=backends_here())
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest, trained: Trained) -> str:
    name: str = request.param
    if name not in trained.package.manifest.graphs:
        pytest.fail(f"splitmerge calibrate gave the package no {name} graphs: see what it printed")
    return name
