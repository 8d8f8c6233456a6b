"""Batch norm in training: frozen, shared by several processes, or computed again at the end."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SharedNorm", "freeze", "norms_of", "recompute", "set_momentum", "share"]


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    """All batch norms of a network."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def freeze(model: nn.Module) -> None:
    """Let batch norms be what they are: running statistics, and neither scale nor shift learns.

    To be called again after `model.train()`.
    """
    for norm in norms_of(model):
        norm.eval()
        norm.requires_grad_(False)


def set_momentum(model: nn.Module, momentum: float | None) -> None:
    """The share of the newest batch in the running statistics; None makes them plain averages over all batches."""
    for norm in norms_of(model):
        norm.momentum = momentum


def recompute(model: nn.Module, batches: int, forward: Callable[[int], object]) -> None:
    """Compute the running statistics anew, as averages over what `forward(0)` to `forward(batches - 1)` see.

    As the Ladder-DenseNet paper's after training (section 5.1).
    """
    momenta = [norm.momentum for norm in norms_of(model)]
    for norm in norms_of(model):
        norm.reset_running_stats()
    set_momentum(model, None)
    model.train()
    # Of plain averages each batch has a share of its own, which a compiled network would be compiled for.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for index in range(batches):
            forward(index)
    for norm, momentum in zip(norms_of(model), momenta, strict=True):
        norm.momentum = momentum


def share(model: nn.Module, device: torch.device) -> None:
    """Let batch norms see the batches of all processes, in place.

    On GPUs that is PyTorch's SyncBatchNorm, which refuses the CPU; there it is `SharedNorm`.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    group = dist.new_group()  # its messages keep their order whatever those of the gradients do
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SharedNorm):
                setattr(parent, name, SharedNorm.like(child, group))


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients pass: they are summed alike."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group, total = group, x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class SharedNorm(_BatchNorm):
    """Batch norm over the batches of all processes, which are of one size: `[N,C,...]` to the same, on any device."""

    group: dist.ProcessGroup

    @classmethod
    def like(cls, norm: _BatchNorm, group: dist.ProcessGroup) -> "SharedNorm":
        """With the very parameters and statistics of another batch norm."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made._parameters, made._buffers, made.group = norm._parameters, norm._buffers, group
        return made.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count, processes = input.numel() // input.shape[1], dist.get_world_size(self.group)
        dims, shape = [0, *range(2, input.ndim)], [1, -1, *[1] * (input.ndim - 2)]
        mean = self._sum(input.mean(dims)) / processes
        centred = input - mean.view(shape)
        variance = self._sum(centred.square().mean(dims)) / processes
        self._track(mean.detach(), variance.detach(), count * processes)
        scale = (variance + self.eps).rsqrt() if self.weight is None else self.weight * (variance + self.eps).rsqrt()
        out: Tensor = centred * scale.view(shape)
        return out if self.bias is None else out + self.bias.view(shape)

    def _sum(self, x: Tensor) -> Tensor:
        out: Tensor = _Sum.apply(x, self.group)  # type: ignore[no-untyped-call]
        return out

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"A batch [N,C,...] was expected, not {input.ndim} dimensions.")
