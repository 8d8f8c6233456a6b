"""Checkpointing changes no number, only what is kept."""

import copy

import pytest
import torch
from torch import Tensor, nn

from splitmerge.errors import InputError
from training.models import create_model
from training.networks.base import SegmentationNet
from training.recompute import PLANS, set_checkpointing

DENSE = [plan for plan in PLANS if plan != "off"]
CASES = [("ldn121-64-4", plan) for plan in DENSE]
CASES += [
    ("smp-dn121", "full"),
    ("lrn18-32-4", "full"),
    ("dpn68-32-4", "units"),
    ("smp50", "full"),
    ("fcn8s-18", "full"),
]


def step(model: SegmentationNet) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss and gradients of a training step, and the bytes that are kept between its two passes."""
    random = torch.Generator().manual_seed(0)
    images, labels = torch.randn(2, 3, 64, 128, generator=random), torch.randint(5, (2, 64, 128), generator=random)
    if hasattr(model, "generator"):
        model.generator = random
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.loss(images, labels)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    return loss.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize(("name", "plan"), CASES)
def test_loss_gradients_and_statistics_are_the_same_to_the_bit(name: str, plan: str) -> None:
    torch.manual_seed(0)
    plain = create_model(name, 5, 4).train()
    other = copy.deepcopy(plain)
    set_checkpointing(other, plan)
    loss, gradients, kept = step(plain)
    loss_again, gradients_again, kept_again = step(other)
    assert torch.equal(loss, loss_again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert kept_again < 0.95 * kept
    norms = [module for module in other.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 1 and norm.momentum == 0.1 for norm in norms)


def test_more_is_saved_where_more_is_computed_again() -> None:
    """The order of Table 11's rows, without what a backward pass needs in addition."""
    kept = {}
    for plan in PLANS:
        torch.manual_seed(0)
        model = create_model("ldn121-32-4", 5, 4).train()
        set_checkpointing(model, plan)
        kept[plan] = step(model)[2]
    order = ["off", "3x3", "cat-1x1", "cat-1x1-and-3x3", "units", "full"]
    assert sorted(kept, key=lambda plan: -kept[plan])[:5] == order[:5]
    assert kept["full"] < kept["off"] / 3 and kept["blocks"] < kept["off"] / 3


def test_evaluation_keeps_its_ways() -> None:
    model = create_model("ldn121-64-4", 5, 4).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        set_checkpointing(model, "full")
        assert torch.equal(model(x), before)


def test_what_would_save_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no checkpointing 'most': choose one of off, 3x3"):
        set_checkpointing(create_model("ldn121-64-4", 5, 4), "most")
    with pytest.raises(InputError, match=r"save nothing in SMPResNet.*choose one of off, units, full"):
        set_checkpointing(create_model("smp18", 5, 4), "blocks")
