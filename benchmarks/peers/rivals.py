"""What users would run instead, and the machine's own matrix product.

Everyone takes a frame uint8 [H,W,3] and gives labels uint8 [H,W]: normalising and argmax are included for all, in the
exported graphs of ONNX Runtime and OpenVINO, and written out here for PyTorch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.limits import gemm as matrix_product
from benchmarks.peers.contestants import Contender
from splitmerge.package import Package

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "gemm",
    "onnxruntime_defaults",
    "openvino_latency",
    "openvino_own_precision",
    "pytorch_compiled",
    "pytorch_eager",
]

Frame = NDArray[np.uint8]


def pytorch_eager(folder: Path) -> Contender:
    """The package's reference network on a whole frame, in evaluation mode without gradients."""
    return _pytorch(folder, compiled=False)


def pytorch_compiled(folder: Path) -> Contender:
    """The same through `torch.compile` and its default backend, compiled for this size before it is measured."""
    contender = _pytorch(folder, compiled=True)
    contender.segment(np.zeros((*Package.open(folder).manifest.input.size, 3), np.uint8))
    return contender


def _pytorch(folder: Path, compiled: bool) -> Contender:
    import torch

    from training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(Package.open(folder).reference_path)
    network = checkpoint.model
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (checkpoint.mean, checkpoint.std))

    def logits(frames: "Tensor") -> "Tensor":
        x: Tensor = network((frames.flip(-1).permute(0, 3, 1, 2).float() / 255 - mean) / std)
        return x

    def labels(frames: "Tensor") -> "Tensor":
        return logits(frames).argmax(1).to(torch.uint8)

    run = torch.compile(labels) if compiled else labels

    @torch.inference_mode()
    def segment(frame: Frame) -> Frame:
        result: Frame = run(torch.from_numpy(frame)[None])[0].numpy()
        return result

    @torch.inference_mode()
    def margins(frame: Frame) -> NDArray[np.float32]:
        best, second = logits(torch.from_numpy(frame)[None])[0].topk(2, dim=0).values
        result: NDArray[np.float32] = (best - second).numpy()
        return result

    return Contender(segment, margins, {"threads": torch.get_num_threads()})


def onnxruntime_defaults(folder: Path) -> Contender:
    """The graph `model` in a session without any option set, as ONNX Runtime's documentation runs one."""
    session = onnxruntime.InferenceSession(str(_whole_graph(folder)), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def segment(frame: Frame) -> Frame:
        labels: Frame = session.run(["labels"], {name: frame[None]})[0][0]
        return labels

    return Contender(segment)


def openvino_latency(folder: Path) -> Contender:
    """The graph `model` compiled for frames of its one size and for latency.

    Float32 is asked for: on processors with bfloat16 units OpenVINO would take that, and other labels with it.
    """
    return _openvino(folder, {"INFERENCE_PRECISION_HINT": "f32"})


def openvino_own_precision(folder: Path) -> Contender:
    """The same in the precision that OpenVINO chooses by itself."""
    return _openvino(folder, {})


def _openvino(folder: Path, precision: dict[str, str]) -> Contender:
    import openvino

    core = openvino.Core()
    model = core.read_model(_whole_graph(folder))
    model.reshape({model.inputs[0]: [1, *Package.open(folder).manifest.input.size, 3]})
    settings = {"PERFORMANCE_HINT": "LATENCY", **precision}
    compiled = core.compile_model(model, "CPU", settings)
    request, output = compiled.create_infer_request(), compiled.output("labels")

    def segment(frame: Frame) -> Frame:
        result: Any = request.infer({0: frame[None]})
        labels: Frame = result[output][0].copy()
        return labels

    chosen = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    return Contender(segment, notes={**settings, "precision": chosen})


def gemm(folder: Path, size: int) -> Contender:
    """A matrix product in place of a frame; its labels mean nothing."""
    product, by = matrix_product(size)

    def segment(frame: Frame) -> Frame:
        product()
        return frame[..., 0]

    return Contender(segment, notes={"size": size, "by": by})


def _whole_graph(folder: Path) -> Path:
    package = Package.open(folder)
    return package.path(package.parts("fp32")["model"])
