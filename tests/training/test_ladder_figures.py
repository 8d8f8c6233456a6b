"""Sizes and costs that the Ladder-DenseNet paper publishes (Tables 1, 2, 5, 9), counted on networks without weights.

A multiply-add is one of a convolution or matrix product, or a batch norm's one per number: without the latter the
paper's ResNet-101 and -50 would lie 77.6 billion apart and not 77.7. All parameters count, also the auxiliary heads'.

The paper's DenseNets are of a form that it tells nothing of, but whose counts are met to the digit: a unit whose input
is no wider than the 1x1 convolution's output, 128 maps, has no 1x1 convolution (`lean=yes`). Weights from ImageNet,
which the paper fine-tunes, need the full form, so that is what the names stand for.

What the text leaves open, and the channels in which it contradicts its own counts (`OF_THE_TEXT`), were chosen to agree
with these figures. So they prove that the networks are consistent with the tables, not that they are the authors'.
"""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.models import create_model
from training.networks import ladder
from training.networks.ldn import NETWORKS

FIGURES = [  # name, parameters in millions, multiply-adds in billions at 1024x1024
    ("dn121-32,lean=yes", 8.2, 56.1),
    ("ldn121-128-4,lean=yes", 9.9, 66.2),
    ("ldn121-64-4,lean=yes", 9.5, 66.5),
    ("ldn121-32-4,lean=yes", 9.0, 75.4),
    ("ldn169-32-4,lean=yes", 15.6, 88.8),
    ("ldn161-64-4,lean=yes", 30.0, 138.7),
    ("lrn18-32-4", 13.3, 55.7),
    ("lrn50-32-4", 26.9, 109.0),
    ("lrn101-32-4", 45.9, 186.7),
    ("ddn121-8,lean=yes", 8.2, 147.8),
    ("lddn121-8-4,lean=yes", 8.6, 174.8),
    ("lddn121-16-4,lean=yes", 8.9, 87.0),
    ("ldn121-64-4,lean=yes,spp=none", 10.2, 66.7),
    ("ldn121-64-4,lean=yes,spp=psp", 10.6, 66.9),
    ("ldn121-64-4,lean=yes,separable=yes", 8.7, 54.2),
]

ELSEWHERE = [
    # "Further upsampling" says the text. No step from the stem's maps gives both figures. Splitting the first block, as
    # the 64->4 network's third, with a first convolution that keeps the resolution, gives the parameters to the digit
    # and 4 billion multiply-adds less.
    ("ldn121-32-2,lean=yes", 9.4, 154.5, 150.5),
    # The backbone takes 48.8 of it, which is 2.34 at 224x224; its authors' table (github.com/cypw/DPNs) says 2.5, its
    # classifier included. The same pyramid and ladder take 17.8 on ResNet-18: 59.0 would leave them 10.
    ("dpn68-32-4", 13.7, 59.0, 67.6),
]

OF_THE_TEXT = [  # name, maps of the backbone d, parameters in millions: published, with section 3.2's d/2, d/8 and d/4
    ("ldn121-64-4", 1024, 9.5, 9.54),
    ("dn121-32", 1024, 8.2, 7.94),
    ("ldn161-64-4", 2208, 30.0, 33.99),
    ("ldn169-32-4", 1664, 15.6, 16.60),
    ("lrn18-32-4", 512, 13.3, 12.23),
    ("lrn50-32-4", 2048, 26.9, 29.31),
]


@cache
def counted(name: str) -> tuple[float, float]:
    """Parameters in millions, multiply-adds in billions at 1024x1024."""
    with torch.device("meta"):
        model, x = create_model(name).eval(), torch.empty(1, 3, 1024, 1024)
    norms = {torch.ops.aten._native_batch_norm_legit_no_training: twice_the_numbers}  # the counter's flops are halves
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=norms) as counter:
        assert model(x).shape == (1, 19, 1024, 1024)
    return sum(p.numel() for p in model.parameters()) / 1e6, counter.get_total_flops() / 2e9


def twice_the_numbers(shape: Sequence[int], *_: object, **__: object) -> int:
    return 2 * torch.Size(shape).numel()


@pytest.mark.parametrize(("name", "millions", "billions"), FIGURES)
def test_published_sizes_and_costs(name: str, millions: float, billions: float) -> None:
    assert counted(name) == pytest.approx((millions, billions), rel=0.01)


@pytest.mark.parametrize(("name", "maps", "published", "millions"), OF_THE_TEXT)
def test_the_texts_channels_do_not_give_the_published_sizes(
    name: str, maps: int, published: float, millions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But on LDN121, for which they are what is built."""
    monkeypatch.setattr(ladder, "_BETWEEN", maps // 2)
    monkeypatch.setattr(ladder, "_LEVEL", maps // 8)
    lean = {} if name.startswith("lrn") else {"lean": True}
    with torch.device("meta"):
        model = NETWORKS[name].build(19, 64, context=maps // 4, **lean)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    assert parameters == pytest.approx(millions, rel=0.002)
    assert (parameters == pytest.approx(published, rel=0.01)) == (name == "ldn121-64-4")


@pytest.mark.parametrize(("name", "millions", "published", "billions"), ELSEWHERE)
def test_costs_that_the_paper_does_not_explain(name: str, millions: float, published: float, billions: float) -> None:
    parameters, cost = counted(name)
    assert parameters == pytest.approx(millions, rel=0.01)
    assert cost == pytest.approx(billions, rel=0.001)
    assert cost != pytest.approx(published, rel=0.01)


def test_the_full_form_costs_the_same_more_everywhere() -> None:
    """Four 1x1 convolutions, three of them at a quarter of the resolution: what torchvision's weights come with."""
    extra = [
        [full - lean for full, lean in zip(counted(name), counted(f"{name},lean=yes"), strict=True)]
        for name in ("dn121-32", "ldn121-64-4", "ldn121-32-4", "ddn121-8")
    ]
    assert extra == [pytest.approx((0.0816, 4.53), rel=0.01)] * 4


def test_auxiliary_heads_cost_nothing_at_inference() -> None:
    """Table 9 gives NoAux the same size and cost."""
    with_heads, without = counted("ldn121-64-4,lean=yes"), counted("ldn121-64-4,lean=yes,auxiliary=no")
    assert without == pytest.approx((9.5, with_heads[1]), rel=0.01)
    assert 0 < with_heads[0] - without[0] < 0.03
