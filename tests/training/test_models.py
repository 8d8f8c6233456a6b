"""Networks: the paper's sizes, the dilated oracle, the training form, torchvision's names."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from networks import with_statistics
from torch import nn

from splitmerge.errors import CheckpointError, InputError
from splitmerge.labels import IGNORE
from training.layers import merge_pool, shrink_pool
from training.models import create_model, list_models, load_backbone
from training.networks.base import cross_entropy
from training.networks.smp import SMP
from training.reduction import SplitMerge


def small_smp(name: str = "smp18", width: int = 4) -> SMP:
    torch.manual_seed(0)
    model = create_model(name, 5, width).double()
    assert isinstance(model, SMP)
    with_statistics(model)
    return model


WINDOWS = ["smp18,windows=2.2.2.2.3", "smp18,windows=3.2.1.2.2", "smp50,windows=2.3.2.1.1"]


@pytest.mark.parametrize("name", ["smp18", "smp34", "smp50", "smp101", *WINDOWS])
def test_split_merge_equals_the_dilated_network(name: str) -> None:
    model = small_smp(name, 2)
    x = torch.randn(2, 3, 64, 99, dtype=torch.float64)
    with torch.no_grad():
        split, dilated = model(x), model.dilated_logits(x)
    assert split.shape == (2, 5, 64, 99)
    assert split.std() > 0.01
    torch.testing.assert_close(split, dilated, rtol=1e-9, atol=1e-9)


def test_any_size_is_padded_and_cropped() -> None:
    model = small_smp()
    x = torch.randn(1, 3, 45, 70, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(F.pad(x, (0, 26, 0, 19)))[:, :, :45, :70], rtol=0, atol=0)
        torch.testing.assert_close(model(x), model.dilated_logits(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("levels", [0, 1, 2, 5])
def test_shrinking_first_levels_computes_a_regular_grid_of_the_full_result(levels: int) -> None:
    model = small_smp()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    offsets = [(1, 0), (0, 1), (1, 1), (0, 0), (1, 0)][:levels]
    with torch.no_grad():
        full = model(x)
        logits, (row, column), stride = model.sample(x, SplitMerge((*offsets, *[None] * (5 - levels))))
    assert stride == 2**levels
    torch.testing.assert_close(logits, full[:, :, row::stride, column::stride], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "stride"), [(WINDOWS[0], 16), (WINDOWS[0], 48), (WINDOWS[1], 6), (WINDOWS[2], 2)])
def test_other_windows_compute_a_regular_grid_too(name: str, stride: int) -> None:
    model = small_smp(name)
    x = torch.randn(1, 3, 48, 96, dtype=torch.float64)
    with torch.no_grad():
        full = model(x)
        for row, column in ((0, 0), (1, stride - 1), (stride - 1, 0)):
            logits, offset, found = model.sample(x, SplitMerge.at(row, column, stride, model.windows))
            assert (*offset, found) == (row, column, stride)
            torch.testing.assert_close(logits, full[:, :, row::stride, column::stride], rtol=1e-9, atol=1e-9)
        model.training_stride = stride
        logits, (row, column), _ = model.sample(x)
        torch.testing.assert_close(logits, full[:, :, row::stride, column::stride], rtol=1e-9, atol=1e-9)


def test_a_split_level_before_a_shrunken_one_is_no_grid() -> None:
    with pytest.raises(ValueError, match="Only the first levels"):
        _ = SplitMerge((None, (0, 0), None, None, None)).grid


def test_training_form_is_expand_of_a_sample_and_repeats_with_its_seed() -> None:
    model = small_smp().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    model.generator = torch.Generator().manual_seed(5)
    sparse = model(x)
    model.generator.manual_seed(5)
    logits, (row, column), stride = model.sample(x)
    assert stride == 32
    assert torch.equal(sparse[:, :, row::32, column::32], logits)
    assert int((sparse != 0).any(1).sum()) == logits[0, 0].numel()
    with torch.no_grad():
        full = model.eval()(x)
    torch.testing.assert_close(logits, full[:, :, row::32, column::32], rtol=1e-9, atol=1e-9)


def test_loss_counts_the_sampled_pixels_alone() -> None:
    model = small_smp().train()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    labels = torch.randint(5, (2, 64, 96))
    model.generator = torch.Generator().manual_seed(1)
    loss = model.loss(x, labels)
    model.generator.manual_seed(1)
    sampled = SplitMerge.sampled(model.generator)
    row, column, stride = sampled.grid
    model.generator.manual_seed(1)
    sparse = model(x)
    masked = torch.full_like(labels, 255)
    masked[:, row::stride, column::stride] = labels[:, row::stride, column::stride]
    torch.testing.assert_close(loss, F.cross_entropy(sparse, masked, ignore_index=255))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("ignored", [0, 40, 48])
def test_cross_entropy_in_any_layout(layout: torch.memory_format, ignored: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 4, 6, dtype=torch.float64), torch.randint(5, (2, 4, 6))
    labels.view(-1)[:ignored] = IGNORE
    given = logits.to(memory_format=layout).requires_grad_()
    cross_entropy(given, labels).backward()
    loss, gradient = torch.zeros(()), torch.zeros_like(logits)
    counted = max(1, 48 - ignored)
    for image, row, column in itertools.product(range(2), range(4), range(6)):
        label = int(labels[image, row, column])
        if label == IGNORE:
            continue
        powers = logits[image, :, row, column].exp()
        shares = powers / powers.sum()
        loss = loss - shares[label].log() / counted
        gradient[image, :, row, column] = (shares - F.one_hot(torch.tensor(label), 5)) / counted
    torch.testing.assert_close(cross_entropy(given, labels), loss.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(given.grad, gradient, rtol=1e-12, atol=1e-12)


def test_all_training_offsets_together_are_the_full_result() -> None:
    """Every one of the 1,024 training forms, put together by expand pooling, is the evaluation form."""
    model = small_smp(width=2)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        full = model(x)
        for row, column in itertools.product(range(0, 32, 5), range(0, 32, 7)):
            offsets = tuple(((row >> level) & 1, (column >> level) & 1) for level in range(5))
            logits = model.sample(x, SplitMerge(offsets)).logits
            torch.testing.assert_close(logits, shrink_pool(full, (row, column), 32), rtol=1e-9, atol=1e-9)


def test_split_batches_merge_back_in_the_order_of_the_levels() -> None:
    split = SplitMerge()
    x = torch.arange(64.0 * 64).reshape(1, 1, 64, 64)
    batches = x
    for level in range(1, 6):
        batches = split.pool(batches, level)
    assert batches.shape == (1024, 1, 2, 2)
    assert torch.equal(split.merge(batches), x)
    assert not torch.equal(merge_pool(batches, 32), x)  # the order is by level, not by row: merging must follow it


@pytest.mark.parametrize("name", ["fcn32s-18", "fcn8s-18", "fcn8s-50"])
def test_baselines_give_full_size_logits(name: str) -> None:
    model = with_statistics(create_model(name, 7, 4))
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 50, 70))
    assert logits.shape == (1, 7, 50, 70)


def test_strided_reading_is_torchs_own_layers() -> None:
    """FCN32s against the same weights in stock strided layers."""
    torch.manual_seed(0)
    model = with_statistics(create_model("fcn32s-18", 5, 4))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = F.relu(model.bn1(F.conv2d(x, model.conv1.weight, stride=2, padding=3)))
        y = nn.MaxPool2d(3, 2, 1)(y)
        for i in range(1, 5):
            for j, block in enumerate(getattr(model, f"layer{i}")):
                stride = 2 if i > 1 and j == 0 else 1
                z = F.relu(block.bn1(F.conv2d(y, block.conv1.weight, stride=stride, padding=1)))
                z = block.bn2(F.conv2d(z, block.conv2.weight, padding=1))
                if block.downsample is not None:
                    y = block.downsample[1](F.conv2d(y, block.downsample[0].weight, stride=stride))
                y = F.relu(z + y)
        y = F.interpolate(model.classifier(y), size=(64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(x), y, rtol=1e-5, atol=1e-5)


def torchvision_names(depth: int) -> set[str]:
    """Names in a torchvision ResNet's state dict, written out from its published layout."""
    counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    convs = 2 if depth == 18 else 3

    def norm(prefix: str) -> set[str]:
        return {f"{prefix}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    names = {"conv1.weight", "fc.weight", "fc.bias"} | norm("bn1")
    for stage, blocks in enumerate(counts, 1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            for conv in range(1, convs + 1):
                names |= {f"{prefix}.conv{conv}.weight"} | norm(f"{prefix}.bn{conv}")
            if block == 0 and (stage > 1 or depth == 50):
                names |= {f"{prefix}.downsample.0.weight"} | norm(f"{prefix}.downsample.1")
    return names


@pytest.mark.parametrize("depth", [18, 50])
def test_a_torchvision_state_dict_loads(depth: int) -> None:
    source = with_statistics(create_model(f"smp{depth}", 19, 8), seed=3)
    state = {name: value for name, value in source.state_dict().items() if not name.startswith("classifier")}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    assert set(state) == torchvision_names(depth)
    model = create_model(f"fcn8s-{depth}", 19, 8)
    load_backbone(model, state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items() if "fc." not in name)
    result = create_model(f"smp{depth}", 19, 8).load_state_dict(state, strict=False)
    assert result.unexpected_keys == ["fc.weight", "fc.bias"]
    assert result.missing_keys == ["classifier.weight", "classifier.bias"]


def test_another_networks_backbone_is_refused() -> None:
    with pytest.raises(CheckpointError, match="same depth"):
        load_backbone(create_model("smp18", width=8), create_model("smp34", width=8).state_dict())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("smp19",), "smp18"), (("smp18", 1), "2 to 255"), (("smp18", 300), "2 to 255"), (("smp18", 19, 0), "width 0")],
)
def test_models_that_cannot_be(arguments, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        create_model(*arguments)


def test_names() -> None:
    depths = (18, 34, 50, 101)
    names = list_models()
    families = [f"{family}{d}" for family in ("smp", "fcn32s-", "fcn8s-") for d in depths]
    assert [name for name in names if name in families] == families
    assert len(names) == len(set(names))
    assert {"dilatedfcn8-18", "deeplabv3-101", "deeplabv3-block7-50", "fastfcn-encnet-50", "pspnet-101"} <= set(names)
    assert {"smp-dn121", "dn121-32", "ddn121-8", "lddn121-16-4", "lrn101-32-4", "dpn68-32-4"} <= set(names)
    assert {f"ldn{d}-{form}" for d in (121, 161, 169) for form in ("128-4", "64-4", "32-4", "32-2", "16-2")} <= set(
        names
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deeplabv3-50,output_stride=12", "choose one of 8, 16, 32"),
        ("deeplabv3-50,output_stride", "output_stride of deeplabv3-50 cannot be"),
        ("deeplabv3-50,multi_grid=1.2", "three rates"),
        ("deeplabv3-50,grid=1.2", "has no option 'grid': it has output_stride, multi_grid"),
        ("smp18,output_stride=8", "it has windows"),
        ("fcn8s-18,windows=2", "it has none"),
        ("smp18,windows=2.2.2", "give 5, each from 1 to 8"),
    ],
)
def test_options_that_cannot_be(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        create_model(name, width=2)


def test_output_strides_share_their_weights() -> None:
    """DeepLabv3, section 4.2: trained at 16, run at 8."""
    state = create_model("deeplabv3-50", 5, 2).state_dict()
    create_model("deeplabv3-50,output_stride=8", 5, 2).load_state_dict(state)


@pytest.mark.parametrize("stride", [4, 16])
def test_a_smaller_training_stride_learns_from_more_pixels_of_the_same_result(stride: int) -> None:
    model = small_smp()
    model.generator, model.training_stride = torch.Generator().manual_seed(2), stride
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        logits, (row, column), sampled = model.sample(x)
        assert sampled == stride and row < stride and column < stride
        torch.testing.assert_close(logits, model(x)[:, :, row::stride, column::stride], rtol=1e-9, atol=1e-9)


def test_a_training_stride_is_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="16 or 32"):
        SplitMerge.sampled(None, 12)
