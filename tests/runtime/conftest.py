"""A small package with engines for the CPU and for an emulated GPU, frames for it, and their labels."""

import numpy as np
import pytest
from emulator import Emulator
from small_package import make_package

from engines.build import build_engines
from runtime.executor import Executor
from splitmerge.package import Package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = make_package(tmp_path_factory.mktemp("package") / "small")
    build_engines(package, "onnxruntime")
    with Emulator():
        build_engines(package, "tensorrt")
    return package


@pytest.fixture(scope="module")
def frames(package: Package) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (3, *package.manifest.input.size, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(package: Package, frames: np.ndarray) -> list[np.ndarray]:
    with Executor(package, backend="onnxruntime") as executor:
        return [executor.segment(frame) for frame in frames]
