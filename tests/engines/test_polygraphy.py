"""NVIDIA's Polygraphy, which users know, reads what this project writes and sees the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_package import make_package

from engines.build import build_engines
from runtime.executor import Executor
from splitmerge.package import Package

pytest.importorskip("polygraphy", reason="pip install 'splitmerge[test]'")

NETWORK = """
import json, sys
from polygraphy.backend.trt import NetworkFromOnnxPath

def end(tensor):
    return [tensor.name, str(tensor.dtype).rsplit(".")[-1].lower(), [None if d < 0 else d for d in tensor.shape]]

builder, network, parser = NetworkFromOnnxPath(sys.argv[1], strongly_typed=True)()
inputs = [end(network.get_input(i)) for i in range(network.num_inputs)]
outputs = [end(network.get_output(i)) for i in range(network.num_outputs)]
print(json.dumps([inputs, outputs]))
"""
TENSORRT = {"uint8": "uint8", "float32": "float"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make_package(tmp_path_factory.mktemp("package") / "small")


@pytest.mark.parametrize("part", ["stem", "trunk", "model"])
def test_its_tensorrt_loader_sees_the_manifests_ends(package: Package, part: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    graph = package.parts("fp32")[part]
    done = subprocess.run(
        [sys.executable, "-c", NETWORK, str(package.path(graph))],
        env={**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    inputs, outputs = json.loads(done.stdout.splitlines()[-1])
    for tensors, told in ((graph.inputs, inputs), (graph.outputs, outputs)):
        assert [[t.name, TENSORRT[t.dtype], list(t.shape)] for t in tensors] == told


def test_its_onnx_runtime_runner_gives_the_executors_labels(package: Package) -> None:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    build_engines(package)
    frame = np.random.default_rng(5).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)
    with OnnxrtRunner(SessionFromOnnx(str(Path(package.folder) / "model.onnx"))) as runner:
        expected = runner.infer({"frames": frame[None]})["labels"][0]
    with Executor(package) as executor:
        np.testing.assert_array_equal(executor.segment(frame), expected)
