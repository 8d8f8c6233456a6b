"""The project's own build and engine on the emulator, from the command line's package to labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_package import make_package

from emulator import EmulatedDevice, Emulator
from engines.machine import find_gpus
from splitmerge.cli import main
from splitmerge.package import Package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small", size=(64, 64))


def plan_of(package: Package, part: str) -> Path:
    """The plan that `splitmerge build --backend tensorrt` makes."""
    assert main(["build", "--package", str(package.folder), "--backend", "tensorrt"]) == 0
    (path,) = package.engines_folder.rglob(f"{part}.plan")
    return path


def test_building_from_the_command_line(package: Package, emulator: Emulator) -> None:
    path = plan_of(package, "trunk")
    assert path.read_bytes()[:4] == b"ftrt"
    assert path.with_suffix(".json").is_file()


def test_an_engine_of_the_project_computes_what_onnxruntime_does(
    package: Package, make_emulator: Callable[..., Emulator]
) -> None:
    """On the second device, with a graph, split batches by address."""
    from engines.cuda import CudaDevice
    from engines.tensorrt_engine import TensorRTEngine

    make_emulator([EmulatedDevice(), EmulatedDevice("second", speed=0.5)])
    plan = plan_of(package, "trunk")
    device = CudaDevice(find_gpus()[1])
    engine = TensorRTEngine(plan.read_bytes(), "tensorrt", device)
    context = engine.create_context()
    with device.thread():
        tail = [size or 0 for size in engine.inputs[0].shape[1:]]
        features = device.empty((4, *tail), np.dtype(np.float32))
        labels = device.empty((4, *[size or 0 for size in engine.outputs[0].shape[1:]]), np.dtype(np.uint8))
        array = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
        context.write(features, array)
        for i in range(0, 4, 2):
            feeds, outputs = {"features": features.batches(i, i + 2)}, {"labels": labels.batches(i, i + 2)}
            context.prepare(feeds, outputs)
            context.enqueue(feeds, outputs)
        result = context.read(labels)
        context.synchronize()
    session = onnxruntime.InferenceSession(str(package.path(package.parts("fp32")["trunk"])))
    (expected,) = session.run(None, {"features": array})
    assert np.array_equal(result, expected)
    del result
    context.close()
    engine.close()
    device.close()
