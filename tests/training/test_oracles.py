"""Networks against their papers' arithmetic, written out here from the weights alone.

A dilated convolution is written as DeepLabv3's section 3.1 says it: with a kernel that has holes. The backbones are
also held against torchvision's, where that is installed.
"""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import with_statistics
from torch import Tensor

from training.models import create_model, load_backbone
from training.networks.encoding import Encoding, presence_loss
from training.networks.layers import adaptive_average
from training.reduction import Atrous, Strided

State = dict[str, Tensor]
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def convolved(state: State, name: str, x: Tensor, stride: int = 1, rate: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    size = weight.shape[-1]
    kernel = weight.new_zeros(*weight.shape[:2], rate * (size - 1) + 1, rate * (size - 1) + 1)
    kernel[:, :, ::rate, ::rate] = weight
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, kernel, state.get(f"{name}.bias"), stride, kernel.shape[-1] // 2, groups=groups)


def normed(state: State, name: str, x: Tensor) -> Tensor:
    shape = [1, -1, *[1] * (x.ndim - 2)]
    mean, var, gain, shift = (
        state[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5) ** 0.5 * gain + shift


def block(state: State, name: str, x: Tensor, rate: int = 1) -> Tensor:
    return normed(state, f"{name}.1", convolved(state, f"{name}.0", x, 1, rate)).clamp(min=0)


def bottleneck(state: State, name: str, x: Tensor, stride: int, rate: int) -> Tensor:
    y = normed(state, f"{name}.bn1", convolved(state, f"{name}.conv1", x)).clamp(min=0)
    y = normed(state, f"{name}.bn2", convolved(state, f"{name}.conv2", y, stride, rate)).clamp(min=0)
    y = normed(state, f"{name}.bn3", convolved(state, f"{name}.conv3", y))
    if f"{name}.downsample.0.weight" in state:
        x = normed(state, f"{name}.downsample.1", convolved(state, f"{name}.downsample.0", x, stride))
    return (x + y).clamp(min=0)


def resnet(state: State, x: Tensor, strides: tuple[int, ...], rates: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    """Stages of a bottleneck ResNet; `rates` has one dilation per unit, of layer1 and so on."""
    x = normed(state, "bn1", convolved(state, "conv1", x, 2)).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for layer, (stride, of_units) in enumerate(zip(strides, rates, strict=True), 1):
        for unit, rate in enumerate(of_units):
            x = bottleneck(state, f"layer{layer}.{unit}", x, stride if unit == 0 else 1, rate)
        stages.append(x)
    return stages


def upsampled(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, by OpenCV."""
    images = [cv2.resize(image.permute(1, 2, 0).numpy(), (width, height)) for image in x]
    return torch.from_numpy(np.stack(images)).reshape(len(images), height, width, -1).permute(0, 3, 1, 2)


def aspp(state: State, name: str, x: Tensor, rates: tuple[int, ...]) -> Tensor:
    branches = [block(state, f"{name}.branches.{i}", x, rate) for i, rate in enumerate((1, *rates))]
    image = block(state, f"{name}.image", x.mean((2, 3), keepdim=True))
    return block(state, f"{name}.project", torch.cat([*branches, image.expand_as(branches[0])], 1))


def network(name: str) -> tuple[torch.nn.Module, State]:
    torch.manual_seed(1)
    model = with_statistics(create_model(name, 5, 4))
    return model, dict(model.state_dict())


def check(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=float(1e-5 * expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "strides", "layer3", "layer4", "pyramid"),
    [
        ("deeplabv3-50", (1, 2, 2, 1), (1,) * 6, (2, 4, 8), (6, 12, 18)),
        ("deeplabv3-101", (1, 2, 2, 1), (1,) * 23, (2, 4, 8), (6, 12, 18)),
        ("deeplabv3-50,output_stride=8", (1, 2, 1, 1), (1, 2, 2, 2, 2, 2), (4, 8, 16), (12, 24, 36)),
        ("deeplabv3-50,output_stride=32", (1, 2, 2, 2), (1,) * 6, (1, 2, 4), (3, 6, 9)),
        ("deeplabv3-50,multi_grid=1.2.1", (1, 2, 2, 1), (1,) * 6, (2, 4, 2), (6, 12, 18)),
    ],
)
def test_deeplabv3_is_the_papers(
    name: str, strides: tuple[int, ...], layer3: tuple[int, ...], layer4: tuple[int, ...], pyramid: tuple[int, ...]
) -> None:
    model, state = network(name)
    x = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        stages = resnet(state, x, strides, ((1,) * 3, (1,) * 4, layer3, layer4))
        scores = convolved(state, "classifier", aspp(state, "aspp", stages[-1], pyramid))
        check(model(x), upsampled(scores, 96, 128))


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("deeplabv3-block5-50", ((2, 4, 2), (4, 8, 4))),
        ("deeplabv3-block7-50", ((2, 4, 2), (4, 8, 4), (8, 16, 8), (16, 32, 16))),
        ("deeplabv3-block6-50,output_stride=8,multi_grid=1.1.1", ((4,) * 3, (8,) * 3, (16,) * 3)),
    ],
)
def test_cascades_are_the_papers(name: str, rates: tuple[tuple[int, ...], ...]) -> None:
    model, state = network(name)
    eight = "stride=8" in name
    layer3 = (1, 2, 2, 2, 2, 2) if eight else (1,) * 6
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        strides = (1, 2, 1 if eight else 2, *[1] * len(rates))
        features = resnet(state, x, strides, ((1,) * 3, (1,) * 4, layer3, *rates))[-1]
        check(model(x), upsampled(convolved(state, "classifier", features), 64, 96))


@pytest.mark.parametrize("name", ["fastfcn-encnet-50", "fastfcn-aspp-50", "fastfcn-psp-50", "encnet-50", "pspnet-101"])
def test_fastfcn_and_its_originals_are_the_papers(name: str) -> None:
    model, state = network(name)
    units = DEPTHS[int(name.rsplit("-", 1)[1])]
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        if name.startswith("fastfcn"):
            _, *last = resnet(state, x, (1, 2, 2, 2), tuple((1,) * count for count in units))
            features = jpu(state, last)
        else:
            rates = ((1,) * units[0], (1,) * units[1], (1, *[2] * (units[2] - 1)), (2, 4, 4))
            features = resnet(state, x, (1, 2, 1, 1), rates)[-1]
        head = {"encnet": encnet, "aspp": aspp_head, "psp": pyramid, "pspnet": pyramid}[name.split("-")[-2]]
        check(model(x), upsampled(head(state, features), 96, 160))


def jpu(state: State, stages: list[Tensor]) -> Tensor:
    height, width = stages[0].shape[-2:]
    maps = [upsampled(block(state, f"jpu.stages.{i}", stage, 1), height, width) for i, stage in enumerate(stages)]
    joined, outputs = torch.cat(maps, 1), []
    for i, rate in enumerate((1, 2, 4, 8)):
        name = f"jpu.dilations.{i}"
        y = normed(state, f"{name}.1", convolved(state, f"{name}.0", joined, 1, rate))
        outputs.append(normed(state, f"{name}.3", convolved(state, f"{name}.2", y)).clamp(min=0))
    return torch.cat(outputs, 1)


def aspp_head(state: State, x: Tensor) -> Tensor:
    return convolved(state, "head.classifier", aspp(state, "head.aspp", x, (12, 24, 36)))


def pyramid(state: State, x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    means = [block(state, f"head.levels.{i}", F.adaptive_avg_pool2d(x, bins)) for i, bins in enumerate((1, 2, 3, 6))]
    joined = torch.cat([x, *(upsampled(mean, height, width) for mean in means)], 1)
    return convolved(state, "head.classifier", block(state, "head.fuse", joined))


def encnet(state: State, x: Tensor) -> Tensor:
    x = block(state, "head.reduce", x)
    code = normed(state, "head.norm", residuals(state, "head.encoding", block(state, "head.project", x)))
    gate = torch.sigmoid(code.clamp(min=0).mean(1) @ state["head.gate.weight"].T + state["head.gate.bias"])
    return convolved(state, "head.classifier", (x + x * gate[:, :, None, None]).clamp(min=0))


def residuals(state: State, name: str, x: Tensor) -> Tensor:
    codewords, scale = state[f"{name}.codewords"], -state[f"{name}.scale"]
    pixels = x.flatten(2).transpose(1, 2)  # [N,P,C]
    residual = pixels[:, :, None] - codewords  # [N,P,K,C]
    share = torch.softmax(-scale * residual.square().sum(3), 2)
    return (share[..., None] * residual).sum(1)


def test_encoding_sums_residuals() -> None:
    torch.manual_seed(0)
    layer, x = Encoding(6, 4).double(), torch.randn(2, 6, 5, 7, dtype=torch.float64)
    state = {f"e.{name}": value for name, value in layer.state_dict().items()}
    torch.testing.assert_close(layer(x), residuals(state, "e", x))


def test_presence_counts_classes_not_pixels() -> None:
    labels = torch.full((2, 4, 4), 255)
    labels[0, 0, 0], labels[0, 1:] = 2, 0
    logits = torch.tensor([[3.0, -3, 3], [-3, -3, -3]])
    assert float(presence_loss(logits, labels)) == pytest.approx(np.log1p(np.exp(-3)), rel=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (6, 6), (8, 3)])
def test_adaptive_average_is_pytorchs(rows: int, columns: int) -> None:
    for height, width in ((6, 12), (7, 5), (17, 33), (4, 3)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        torch.testing.assert_close(adaptive_average(x, rows, columns), F.adaptive_avg_pool2d(x, (rows, columns)))


@pytest.mark.parametrize(("depth", "output_stride"), [(18, 8), (50, 8), (50, 16), (50, 4)])
def test_a_dilated_network_holds_the_strided_ones_pixels(depth: int, output_stride: int) -> None:
    """FastFCN, Eq. 2 and 3: of the dilated network's stages every so many rows and columns are the strided one's."""
    torch.manual_seed(0)
    model = with_statistics(create_model(f"fcn32s-{depth}", 5, 4)).double()
    x = torch.randn(1, 3, 128, 192, dtype=torch.float64)
    with torch.no_grad():
        strided, dilated = model.features(x, Strided()), model.features(x, Atrous(output_stride))
    for stride, few, many in zip((4, 8, 16, 32), strided, dilated, strict=True):
        step = max(1, stride // output_stride)
        assert few.shape[-1] * step == many.shape[-1]
        torch.testing.assert_close(many[:, :, ::step, ::step], few)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "dilate", "output_stride"), [(50, [False, True, True], 8), (101, [False] * 3, 32)])
def test_backbones_are_torchvisions(depth: int, dilate: list[bool], output_stride: int) -> None:
    models = pytest.importorskip("torchvision.models", reason="pip install torchvision, where it fits PyTorch")
    theirs = with_statistics(getattr(models, f"resnet{depth}")(replace_stride_with_dilation=dilate), seed=2)
    ours = create_model(f"fcn32s-{depth}", 5).eval()
    load_backbone(ours, theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        y = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(y))))
        check(ours.features(x, Atrous(output_stride))[-1], y)
