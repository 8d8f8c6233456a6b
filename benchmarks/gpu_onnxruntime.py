"""ONNX Runtime's CUDA provider on the same graphs, with inputs and outputs bound to GPU memory."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.gpu_rows import FRAME, RESIDENT, Made, Way
from splitmerge.package import Package

__all__ = ["onnxruntime_ways", "streamed", "whole"]

_PROVIDER = "CUDAExecutionProvider"
_PROVIDERS = {"cuda": _PROVIDER, "cpu": "CPUExecutionProvider"}
_NAME = "ONNX Runtime CUDA"


def onnxruntime_ways(
    package: Package, frame: NDArray[np.uint8], work: dict[str, int], form: str = "split"
) -> Iterator[Way]:
    """Rows for each precision of the package; one that says what is missing where the provider is not installed."""
    if _PROVIDER not in onnxruntime.get_available_providers():
        reason = f"onnxruntime {onnxruntime.__version__} here has no {_PROVIDER}: install onnxruntime-gpu in its place"
        yield Way("whole frame", _NAME, absent=reason)
        return
    for precision in package.manifest.graphs:

        def make_streamed(stack: ExitStack, precision: str = precision) -> Made:
            return streamed(package, precision, frame)

        def make_whole(stack: ExitStack, precision: str = precision) -> Made:
            return whole(package, precision, frame)

        def make_there(stack: ExitStack, precision: str = precision) -> Made:
            return whole(package, precision, frame, there=True)

        name = f"{_NAME} {precision}, {form}"
        if package.manifest.cut:
            yield Way(FRAME, f"{name}, streamed", make_streamed, work.get("model"))
        yield Way(FRAME, f"{name}, in one go", make_whole, work.get("model"))
        yield Way(RESIDENT, f"{name}, in one go", make_there, work.get("model"))


def _session(package: Package, precision: str, part: str, device: str) -> Any:
    path, provider = package.path(package.parts(precision)[part]), _PROVIDERS[device]
    session = onnxruntime.InferenceSession(str(path), providers=list(dict.fromkeys((provider, _PROVIDERS["cpu"]))))
    if session.get_providers()[0] != provider:  # it falls back to the CPU without an error
        raise RuntimeError(f"{provider} could not start, and ONNX Runtime took the CPU")
    return session


def whole(
    package: Package, precision: str, frame: NDArray[np.uint8], device: str = "cuda", there: bool = False
) -> Made:
    """The graph `model` on a frame uint8 [H,W,3]. With `there` the frame is copied once and labels are not read."""
    session = _session(package, precision, "model", device)
    name = session.get_inputs()[0].name
    kept = onnxruntime.OrtValue.ortvalue_from_numpy(frame[None], device, 0) if there else None

    def run() -> NDArray[np.uint8] | None:
        binding = session.io_binding()
        binding.bind_ortvalue_input(name, kept or onnxruntime.OrtValue.ortvalue_from_numpy(frame[None], device, 0))
        binding.bind_output("labels", device)
        session.run_with_iobinding(binding)
        if there:
            binding.synchronize_outputs()
            return None
        labels: NDArray[np.uint8] = binding.get_outputs()[0].numpy()[0]
        return labels

    return Made(run)


def streamed(package: Package, precision: str, frame: NDArray[np.uint8], device: str = "cuda") -> Made:
    """Stem, then the trunk on one split batch after the other, read where the stem left them."""
    stem, trunk = (_session(package, precision, part, device) for part in ("stem", "trunk"))
    frames, features = stem.get_inputs()[0].name, trunk.get_inputs()[0].name
    cut, contract = package.manifest.cut, package.manifest.input
    assert cut is not None
    dtype = np.dtype(package.parts(precision)["trunk"].inputs[0].dtype)
    padded = np.empty((contract.padded_height, contract.padded_width), np.uint8)

    def run() -> NDArray[np.uint8]:
        binding = stem.io_binding()
        binding.bind_ortvalue_input(frames, onnxruntime.OrtValue.ortvalue_from_numpy(frame[None], device, 0))
        binding.bind_output(features, device)
        stem.run_with_iobinding(binding)
        made = binding.get_outputs()[0]
        shape = (1, *made.shape()[1:])
        step = int(np.prod(shape)) * dtype.itemsize
        for index in range(cut.batches):
            one = trunk.io_binding()
            one.bind_input(features, device, 0, dtype, shape, made.data_ptr() + index * step)
            one.bind_output("labels", device)
            trunk.run_with_iobinding(one)
            row, column = divmod(index, cut.columns)
            padded[row :: cut.rows, column :: cut.columns] = one.get_outputs()[0].numpy()[0]
        return padded[: contract.height, : contract.width].copy()

    return Made(run)
