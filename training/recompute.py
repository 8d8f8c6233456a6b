"""Gradient checkpointing: activations that are dropped in the forward pass and computed again in the backward pass.

The segments are those of the Ladder-DenseNet paper (section 4, Table 11). Losses and gradients are the same to the last
bit, and so are batch norm's running statistics, which would otherwise be updated a second time by the recomputation.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from splitmerge.errors import InputError

__all__ = ["PLANS", "Recomputing", "set_checkpointing"]

PLANS: Mapping[str, frozenset[str]] = {
    "off": frozenset(),
    "3x3": frozenset({"3x3"}),
    "cat-1x1": frozenset({"cat-1x1"}),
    "cat-1x1-and-3x3": frozenset({"cat-1x1", "3x3"}),
    "blocks": frozenset({"block", "rest"}),
    "units": frozenset({"unit"}),
    "full": frozenset({"unit", "rest"}),
}
"""Segments by the name of a plan, in the order of Table 11's rows.

A DenseNet unit is the concatenation of all before it and a 1x1 convolution (`cat-1x1`), then a 3x3 convolution
(`3x3`), each after batch norm and ReLU. `unit` makes one segment of both, or of a residual block; `block` is a whole
dense block; `rest` are the stem, the transitions and the ladder's steps.
"""


class Recomputing(nn.Module):
    """A module that has segments which can be computed again."""

    plan: frozenset[str] = PLANS["off"]
    segments: frozenset[str] = frozenset()
    """The kinds there are."""

    def segment(self, kind: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`function(*inputs)`; what it computes between is dropped where the plan says so and the network is training.

        `function` may use this module's batch norms and no others.
        """
        if kind not in self.plan or not self.training or not torch.is_grad_enabled():
            return function(*inputs)
        out: Tensor = checkpoint(
            function,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing here is random
            context_fn=self._contexts,
        )
        return out

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(self)


def set_checkpointing(network: nn.Module, plan: str) -> None:
    """Let a network's training compute the segments of a plan again.

    Raises InputError for a plan that is none, or one that would change nothing in this network.
    """
    if plan not in PLANS:
        raise InputError(f"There is no checkpointing {plan!r}: choose one of {', '.join(PLANS)}.")
    modules = [module for module in network.modules() if isinstance(module, Recomputing)]
    there = frozenset[str]().union(*(module.segments for module in modules))
    useful = [name for name, kinds in PLANS.items() if name == "off" or kinds & there]
    if plan not in useful:
        raise InputError(
            f"Checkpointing {plan!r} would save nothing in {type(network).__name__}, which has no such segments: "
            f"choose one of {', '.join(useful)}."
        )
    for module in modules:
        module.plan = PLANS[plan]


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms use their batch's statistics but leave the running ones alone."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, None if (n := norm.num_batches_tracked) is None else n.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
