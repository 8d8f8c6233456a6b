"""What PyTorch computes: logits, and the outputs of all convolutions where an export has to be searched for a fault."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.layouts import Layout
from splitmerge.errors import VerificationError
from splitmerge.package import InputContract

__all__ = ["convolutions_from_torch", "dense_from_nested", "finite_logits", "logits_from_torch", "normalised"]

Array = NDArray[np.float32]


def normalised(frames: NDArray[np.uint8], contract: InputContract) -> Tensor:
    """Frames as the network was trained on them: float32 `[N,3,H,W]`, red-green-blue, by mean and std."""
    rgb = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1].transpose(0, 3, 1, 2)))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (contract.mean, contract.std))
    return (rgb.float() / 255 - mean) / std


def logits_from_torch(network: nn.Module, x: Tensor, method: str = "forward") -> Array:
    """Logits `[N,classes,H,W]`. Raises VerificationError where one is not finite."""
    with torch.inference_mode():
        logits: Tensor = getattr(network, method)(x)
    return finite_logits(logits, method)


def finite_logits(logits: Tensor, method: str) -> Array:
    """The logits as an array. Raises VerificationError where one is not finite, naming the network's `method`."""
    if not torch.isfinite(logits).all():
        raise VerificationError(
            f"The network itself gives logits that are NaN or infinite ({method} in PyTorch, float32): its weights are "
            "of no use; go back to an earlier checkpoint."
        )
    return logits.numpy()


def convolutions_from_torch(network: nn.Module, x: Tensor, padding: tuple[int, int]) -> dict[str, Array]:
    """Output of every convolution by its name, after the batch norm that follows it directly.

    `x` is padded by (below, right) as the network would. Batches are in PyTorch's order, see `dense_from_nested`.
    """
    below, right = padding
    padded = F.pad(x, (0, right, 0, below))
    names = {id(weight): name.removesuffix(".weight") for name, weight in network.named_parameters()}
    recorder = _Recorder(names)
    with torch.no_grad(), recorder:
        getattr(network, "padded_logits", network)(padded)
    return {name: value.numpy() for name, value in recorder.outputs.items()}


def dense_from_nested(batches: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Put PyTorch's split batches back: a split numbers its batches after those before it, so the last goes first."""
    for rows, columns in reversed(layout):
        count, channels, height, width = batches.shape
        dense = np.empty((count // (rows * columns), channels, height * rows, width * columns), batches.dtype)
        for offset in range(rows * columns):
            row, column = divmod(offset, columns)
            dense[:, :, row::rows, column::columns] = batches[offset :: rows * columns]
        batches = dense
    return batches


class _Recorder(TorchFunctionMode):
    """Notes what convolutions return; also where the network calls them without their module."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.outputs: dict[str, Tensor] = {}
        self._names = names
        self._waiting: dict[int, str] = {}  # id of a convolution's output -> its name, until a batch norm takes it

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.conv2d and id(args[1]) in self._names:
            stem = name = self._names[id(args[1])]
            uses = 0
            while name in self.outputs:  # a shared weight: named as export.trace does
                uses += 1
                name = f"{stem}_{uses}"
            self.outputs[name] = out
            self._waiting[id(out)] = name
        elif func is F.batch_norm and id(args[0]) in self._waiting:
            self.outputs[self._waiting.pop(id(args[0]))] = out
        return out
