"""Published sizes and costs, counted: parameters, and multiply-adds by PyTorch's own counter, without any weights."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.layers import MergePool, SplitPool
from training.models import create_model

PARAMETERS = [  # SMP paper, Tables 1 and 2, in millions, with the digits that they give
    ("smp18", 11.186, 3),
    ("fcn32s-18", 11.186, 3),
    ("fcn8s-18", 11.193, 3),
    ("smp34", 21.29, 2),
    ("fcn32s-34", 21.29, 2),
    ("fcn8s-34", 21.30, 2),
    ("smp101", 42.54, 2),
    ("fcn32s-101", 42.54, 2),
    ("fcn8s-101", 42.56, 2),
]


@pytest.mark.parametrize(("name", "millions", "digits"), PARAMETERS)
def test_parameter_counts_are_the_papers(name: str, millions: float, digits: int) -> None:
    with torch.device("meta"):
        counted = sum(p.numel() for p in create_model(name).parameters()) / 1e6
    # The paper rounds 42.539 to 42.54 but cuts 42.568 to 42.56, so either way of writing a count must be met.
    assert millions in (round(counted, digits), math.floor(counted * 10**digits) / 10**digits)


def multiply_adds(network: nn.Module, height: int, width: int) -> int:
    x = torch.empty(1, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network.to("meta").eval()(x).shape[-2:] == (height, width)
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize(
    ("between", "rate", "after", "total"),
    [
        (nn.MaxPool2d(2), 1, nn.Upsample(scale_factor=2), 2.65),
        (nn.Identity(), 2, nn.Identity(), 9.92),
        (SplitPool(2), 1, MergePool(2), 9.92),
    ],
    ids=["max pooling", "dilated", "split"],
)
def test_splitting_costs_what_dilating_costs(between: nn.Module, rate: int, after: nn.Module, total: float) -> None:
    """SMP paper, Table 5 and Fig. 7: two 3x3 convolutions of 128 channels on 1x3x256x256, in billions.

    The paper does not say how many channels there are: 128 give its 0.23 for conv1 and 2.42 and 9.68 for conv2.
    """
    conv1, conv2 = nn.Conv2d(3, 128, 3, padding=1), nn.Conv2d(128, 128, 3, padding=rate, dilation=rate)
    assert multiply_adds(conv1, 256, 256) / 1e9 == pytest.approx(0.23, rel=0.02)  # two digits are given
    network = nn.Sequential(conv1, between, conv2, after)
    assert multiply_adds(network, 256, 256) / 1e9 == pytest.approx(total, rel=0.01)


def test_every_pixel_of_smp18_at_1024x2048_takes_23_5_trillion() -> None:
    """Each layer behind a split by s x s works on s*s batches: what the design rests on, counted on a sixteenth."""
    with torch.device("meta"):
        assert 16 * multiply_adds(create_model("smp18"), 256, 512) / 1e12 == pytest.approx(23.5, rel=0.01)
