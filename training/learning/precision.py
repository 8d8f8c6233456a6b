"""Mixed precision: what a step computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["PRECISIONS", "autocast"]

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Weights are float32 throughout; convolutions compute in the type given, float16 with scaled gradients."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """PyTorch's automatic mixed precision while the block lasts, or nothing for fp32."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
