"""torch.compile for a training step, where it was asked for.

Split-Merge Pooling draws other offsets in every step: seen by the compiler, each of the 1,024 combinations would be a
program of its own. So its reductions stay as they are, a handful of calls, and what lies between them is compiled; the
loss, which picks the labels of the drawn pixels, too, is left outside. Of other networks the whole loss is compiled.

Results are those of the uncompiled step but for the order of float32's roundings, and the same in every call.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch._dynamo
from torch import Tensor, nn

from splitmerge.errors import InputError
from training.networks.base import SegmentationNet
from training.networks.smp import SMP
from training.reduction import Reduction

__all__ = ["check_compiler", "compiled", "failures_told"]

_PROGRAMS = 256  # of one function: every residual block is one of its own, in the forms that offsets leave tensors in


def check_compiler(device: torch.device) -> None:
    """Raises InputError where what PyTorch's compiler needs on a device is not there."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"--compile needs a C++ compiler, and there is no program {compiler}: install g++, name another in the "
            "environment variable CXX, or leave --compile out."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(
            "--compile needs the package triton on a GPU, which is not installed: pip install triton, or leave "
            "--compile out."
        )


def compiled(model: SegmentationNet, loss_of: nn.Module) -> nn.Module:
    """`loss_of(images, labels)`, the loss of `model`, compiled when it is first called; the weights stay the same."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    if not isinstance(model, SMP):
        return cast(nn.Module, torch.compile(loss_of, dynamic=False))
    plain = model.logits
    between = torch.compile(plain, dynamic=False)

    def logits(x: Tensor, reduction: Reduction) -> Tensor:
        # Validation has images of any size and would be compiled for each.
        return between(x, _Apart(reduction)) if model.training else plain(x, reduction)

    model.logits = logits  # type: ignore[method-assign]
    return loss_of


@contextmanager
def failures_told() -> Iterator[None]:
    """Raise InputError, in a sentence, for what the compiler raises inside the block."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        yield
    except (TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"torch.compile cannot compile this training ({reason}): leave --compile out.") from error


@dataclass(frozen=True)
class _Apart:
    """A reduction whose own part the compiler does not look into."""

    whole: Reduction

    def conv(self, conv: nn.Conv2d, x: Tensor, level: int) -> Tensor:
        return self.whole.conv(conv, x, level)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def reducing_conv(self, conv: nn.Conv2d, norm: nn.Module, x: Tensor, level: int) -> Tensor:
        return self.whole.reducing_conv(conv, norm, x, level)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def pool(self, x: Tensor, level: int) -> Tensor:
        return self.whole.pool(x, level)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def mean_pool(self, x: Tensor, level: int) -> Tensor:
        return self.whole.mean_pool(x, level)
