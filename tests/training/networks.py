"""What tests of networks share."""

import torch
from torch import nn


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, with random running statistics, so that no batch norm passes as the identity."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.5, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.bias.data.normal_(0, 0.5, generator=random)
    return model.eval()
