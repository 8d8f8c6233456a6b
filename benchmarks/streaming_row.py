"""One row of `benchmarks.streaming`, in a process of its own: peak memory and time of one way to run a package.

    python -m benchmarks.streaming_row PACKAGE MODE CONTEXTS FRAMES LABELS.npy

prints a JSON object. PyTorch is not imported. MODE is `streamed`, or the whole graph as `whole` (as it is loaded),
`whole-alike` (in an arena as stem and trunk have it) or `whole-defaults` (the exported graph in a session without any
option set). `stem` and `trunk` run these alone, the trunk on one split batch, to tell which of them sets the peak.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.high_water import HighWater
from engines.interface import Engine
from engines.load import load_engine
from engines.onnxruntime_engine import OnnxRuntimeEngine, threads_of_each
from engines.sidecar import engine_folder
from runtime.executor import Executor
from splitmerge.package import Package

LABELLING = ("whole", "whole-alike", "whole-defaults", "streamed")
"""Modes that give a whole label map."""


def measure(package: Package, mode: str, contexts: int, frames: int) -> tuple[dict[str, Any], NDArray[Any]]:
    """Memory in MiB and time in ms. The baseline is the process with its engines loaded and nothing run."""
    height, width = package.manifest.input.size
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    run = _runner(package, mode, contexts, frame)
    memory = HighWater()
    times = []
    for _ in range(frames):
        start = time.perf_counter()
        result = run()
        times.append((time.perf_counter() - start) * 1e3)
    peak = memory.peak()
    row = {
        "mode": mode,
        "contexts": contexts,
        "baseline_mib": round(memory.baseline, 1),
        "peak_mib": round(peak, 1),
        "activations_mib": round(peak - memory.baseline, 1),
        "first_ms": round(times[0], 1),
        "median_ms": round(statistics.median(times[1:] or times), 1),
        "frames": frames,
    }
    return row, result


def _runner(package: Package, mode: str, contexts: int, frame: NDArray[np.uint8]) -> Callable[[], NDArray[Any]]:
    if mode == "streamed":
        executor = Executor(package, contexts=contexts)
        return lambda: executor.segment(frame)
    if mode == "whole":
        return _single(load_engine(package, "model"), frame[None], 1)
    if mode == "whole-alike":
        path = engine_folder(package, "onnxruntime", "fp32") / "model.onnx"
        engine = OnnxRuntimeEngine(path.read_bytes(), threads_of_each(1, None), shared_arena=True, weights=path.parent)
        return _single(engine, frame[None], 1)
    if mode == "whole-defaults":
        return _defaults(package, frame)
    cut, contract = package.manifest.cut, package.manifest.input
    assert cut is not None
    if mode == "stem":
        return _single(load_engine(package, "stem"), frame[None], cut.batches)
    trunk = load_engine(package, "trunk")
    channels = trunk.inputs[0].shape[1] or 1
    features = np.ones(
        (1, channels, contract.padded_height // cut.rows, contract.padded_width // cut.columns), np.float32
    )
    return _single(trunk, features, 1)


def _defaults(package: Package, frame: NDArray[np.uint8]) -> Callable[[], NDArray[Any]]:
    """The exported graph as ONNX Runtime's documentation runs one."""
    graph = package.parts("fp32")["model"]
    session = onnxruntime.InferenceSession(str(package.path(graph)), providers=["CPUExecutionProvider"])

    def run() -> NDArray[Any]:
        labels: NDArray[Any] = session.run(["labels"], {graph.inputs[0].name: frame[None]})[0][0]
        return labels

    return run


def _single(engine: Engine, feed: NDArray[Any], batches: int) -> Callable[[], NDArray[Any]]:
    """Runs an engine of one input and one output."""
    (source,), (target,) = engine.inputs, engine.outputs
    feeds = {source.name: engine.device.empty(feed.shape, feed.dtype)}
    shape = (batches, *(d or 1 for d in target.shape[1:]))
    outputs = {target.name: engine.device.empty(shape, np.dtype(target.dtype))}
    context = engine.create_context()

    def run() -> NDArray[Any]:
        context.write(feeds[source.name], feed)
        context.enqueue(feeds, outputs)
        result = context.read(outputs[target.name])
        context.synchronize()
        first: NDArray[Any] = result[0]
        return first

    return run


def main() -> None:
    folder, mode, contexts, frames, labels = sys.argv[1:]
    row, result = measure(Package.open(Path(folder)), mode, int(contexts), int(frames))
    if mode in LABELLING:
        np.save(labels, result)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
