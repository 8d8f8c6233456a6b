"""Training with shrink pooling costs the multiplications of the strided network, forward and backward."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.models import create_model
from training.networks.smp import SMP
from training.reduction import SplitMerge, Strided


def multiplications(model: SMP, reduction: object) -> int:
    x = torch.randn(1, 3, 64, 96)
    with FlopCounterMode(display=False) as counter:
        model.logits(x, reduction).sum().backward()  # type: ignore[arg-type]
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", ["smp18", "smp50"])
def test_shrinking_costs_what_striding_costs(name: str) -> None:
    model = create_model(name, 19, 8).train()
    assert isinstance(model, SMP)
    strided = multiplications(model, Strided())
    for seed in range(4):
        offsets = torch.Generator().manual_seed(seed)
        assert multiplications(model, SplitMerge.sampled(offsets)) == strided
    # Unfused, each reducing convolution would run at stride 1. Splitting at the last level quadruples layer4 alone.
    assert 1.3 < multiplications(model, SplitMerge.sampled(None, 16)) / strided < 2.5
