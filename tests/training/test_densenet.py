"""DenseNets: torchvision's names, its layers written out, split-merge against dilated, the cost of training."""

import pytest
import torch
import torch.nn.functional as F
from networks import with_statistics
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from splitmerge.errors import CheckpointError
from training.models import create_model, load_backbone
from training.networks.densenet import DenseFeatures
from training.networks.smp import SMP
from training.reduction import SplitMerge, Strided

UNITS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32)}


def torchvision_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """The state dict of torchvision's `features`, written out from its published layout."""
    growth, channels = (48, 96) if depth == 161 else (32, 64)
    shapes: dict[str, tuple[int, ...]] = {"conv0.weight": (channels, 3, 7, 7)}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("norm0", channels)
    for block, units in enumerate(UNITS[depth], 1):
        for unit in range(1, units + 1):
            prefix = f"denseblock{block}.denselayer{unit}"
            norm(f"{prefix}.norm1", channels)
            shapes[f"{prefix}.conv1.weight"] = (4 * growth, channels, 1, 1)
            norm(f"{prefix}.norm2", 4 * growth)
            shapes[f"{prefix}.conv2.weight"] = (growth, 4 * growth, 3, 3)
            channels += growth
        if block < 4:
            norm(f"transition{block}.norm", channels)
            shapes[f"transition{block}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    norm("norm5", channels)
    return shapes


@pytest.mark.parametrize("depth", UNITS)
def test_names_and_shapes_are_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        state = DenseFeatures(depth, 64, last_norm=True).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == torchvision_shapes(depth)


def test_torchvisions_weights_load_under_every_head() -> None:
    source = with_statistics(create_model("smp-dn121", 5, 4), seed=3)
    state = {name: value for name, value in source.state_dict().items() if name.startswith("features.")}
    state |= {"classifier.weight": torch.zeros(1000, 64), "classifier.bias": torch.zeros(1000)}
    for name in ("smp-dn121", "ldn121-64-4", "ldn121-16-2", "ddn121-8"):
        model = create_model(name, 5, 4)
        load_backbone(model, state)
        own = model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in own.items() if key.startswith("features."))
    for other in ("ldn161-64-4", "ldn121-64-4,lean=yes"):
        with pytest.raises(CheckpointError, match="same depth"):
            load_backbone(create_model(other, 5, 4), state)


def densenet(weights: dict[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """torchvision's features in plain functions, one after the other, from a state dict."""

    def norm(name: str, x: Tensor) -> Tensor:
        scale = weights[f"{name}.weight"] / torch.sqrt(weights[f"{name}.running_var"] + 1e-5)
        shift = weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * scale
        return (x * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    x = norm("norm0", F.conv2d(x, weights["conv0.weight"], stride=2, padding=3))
    x = F.max_pool2d(x, 3, 2, 1)
    for block, units in enumerate(UNITS[depth], 1):
        for unit in range(1, units + 1):
            prefix = f"denseblock{block}.denselayer{unit}"
            new = F.conv2d(norm(f"{prefix}.norm1", x), weights[f"{prefix}.conv1.weight"])
            new = F.conv2d(norm(f"{prefix}.norm2", new), weights[f"{prefix}.conv2.weight"], padding=1)
            x = torch.cat([x, new], 1)
        if block < 4:
            x = F.avg_pool2d(F.conv2d(norm(f"transition{block}.norm", x), weights[f"transition{block}.conv.weight"]), 2)
    return norm("norm5", x)


def test_the_strided_form_is_torchvisions_layers() -> None:
    torch.manual_seed(0)
    features = with_statistics(DenseFeatures(121, 8, last_norm=True)).double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = densenet(features.state_dict(), x, 121)
        torch.testing.assert_close(features(x, Strided())[-1], expected, rtol=1e-9, atol=1e-9)
    assert expected.shape == (2, 128, 2, 3) and expected.std() > 0.01


@pytest.fixture(scope="module")
def smp() -> SMP:
    torch.manual_seed(0)
    model = with_statistics(create_model("smp-dn121", 5, 2)).double()
    assert isinstance(model, SMP)
    return model


def test_split_merge_equals_the_dilated_network(smp: SMP) -> None:
    x = torch.randn(1, 3, 45, 70, dtype=torch.float64)
    with torch.no_grad():
        split, dilated = smp(x), smp.dilated_logits(x)
    assert split.shape == (1, 5, 45, 70) and split.std() > 0.01
    torch.testing.assert_close(split, dilated, rtol=1e-9, atol=1e-9)


def test_the_training_form_is_a_sample_of_the_full_result(smp: SMP) -> None:
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        full = smp(x)
        for seed, stride in ((0, 32), (1, 32), (2, 8)):
            sampled = SplitMerge.sampled(torch.Generator().manual_seed(seed), stride)
            logits, (row, column), _ = smp.sample(x, sampled)
            torch.testing.assert_close(logits, full[:, :, row::stride, column::stride], rtol=1e-9, atol=1e-9)


def test_a_training_step_costs_what_the_strided_networks_does() -> None:
    model, x = create_model("smp-dn121", 19, 8).train(), torch.randn(2, 3, 64, 96)
    assert isinstance(model, SMP)
    counts = []
    for reduction in (Strided(), SplitMerge.sampled(torch.Generator().manual_seed(0))):
        with FlopCounterMode(display=False) as counter:
            model.logits(x, reduction).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
