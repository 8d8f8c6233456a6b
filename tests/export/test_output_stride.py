"""A trained network at a lower output stride, against PyTorch's dilated convolutions with the same weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from export_samples import MEAN, STD, interleaved, network, noise, normalised, ort
from numpy.typing import NDArray
from rewriting_checks import poolings, run
from torch import Tensor, nn

from export.atrous import AtOutputStride
from export.dilated_form import dilate_split
from export.output_stride import lower_output_stride
from export.simplify import fix_reshape_sizes, fix_resize_sizes, fold_batch_norm
from export.trace import trace
from splitmerge.errors import InputError
from training.models import create_model
from training.networks.base import SegmentationNet, resize
from training.reduction import Dilated

HEIGHT, WIDTH = 64, 96


def traced(model: torch.nn.Module) -> ir.Model:
    graph = trace(model, HEIGHT, WIDTH)
    fold_batch_norm(graph)
    fix_resize_sizes(graph)
    fix_reshape_sizes(graph)
    return graph


def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(size=(2, 3, HEIGHT, WIDTH)).astype(np.float32))


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class DilatedWithMaximum(Dilated):
    """`Dilated` leaves the ResNet's max pooling out, as Split-Merge Pooling does; a trained FCN still has it."""

    def pool(self, x: Tensor, level: int) -> Tensor:
        return F.max_pool2d(F.pad(x, (2, 2, 2, 2), value=-torch.inf), kernel_size=3, stride=1, dilation=2)


@pytest.fixture(scope="module")
def fcn() -> tuple[SegmentationNet, ir.Model]:
    model = network("fcn32s-18")
    return model, traced(model)


def test_at_stride_1_it_is_the_dilated_network(fcn: tuple[SegmentationNet, ir.Model]) -> None:
    """Moved by 16 pixels: what FCN32s says of pixel j of its map it says of 32 pixels, 15.5 further on the average."""
    model, graph = fcn
    lowered = graph.clone()
    lower_output_stride(lowered, 1)
    assert poolings(lowered).count(("MergePool", (16, 16))) == 1
    (found,) = run(lowered, {"x": image().numpy()}).values()
    with torch.no_grad():
        expected = model.classifier(model.features(image(), DilatedWithMaximum())[-1]).numpy()  # type: ignore[operator]
    assert_close(found[:, :, 16:, 16:], expected[:, :, :-16, :-16])


@pytest.mark.parametrize("stride", [16, 8, 4, 2, 1])
def test_every_stride_in_both_forms(fcn: tuple[SegmentationNet, ir.Model], stride: int) -> None:
    model, graph = fcn
    lowered = graph.clone()
    lower_output_stride(lowered, stride)
    with torch.no_grad():
        expected = AtOutputStride(model, stride)(image()).numpy()
    (found,) = run(lowered, {"x": image().numpy()}).values()
    assert_close(found, expected)
    dilate_split(lowered)
    assert not poolings(lowered)
    (found,) = run(lowered, {"x": image().numpy()}).values()
    assert_close(found, expected)


@pytest.mark.parametrize("stride", [16, 8])
def test_its_pixels_are_those_of_frames_moved_by_less_than_the_stride(
    fcn: tuple[SegmentationNet, ir.Model], stride: int
) -> None:
    """Independent of dilation and splits: a map at a lower stride holds those of the frame moved, far from borders."""
    model, _ = fcn
    x = F.pad(image()[:1], (640, 640, 640, 640))  # the receptive field is 435 pixels wide
    seen = AtOutputStride(model, stride)
    recorded: list[Tensor] = []
    model.classifier.register_forward_hook(lambda module, inputs, output: recorded.append(output))  # type: ignore[union-attr]
    with torch.no_grad():
        seen(x)
        model(torch.roll(x, (-stride, 0), (2, 3)))
    dense, moved = recorded
    each = 32 // stride
    inner = slice(18, 24)
    assert_close(dense[:, :, 1::each, ::each][:, :, inner, inner].numpy(), moved[:, :, inner, inner].numpy())
    model.classifier._forward_hooks.clear()  # type: ignore[union-attr]


class WithPoolings(SegmentationNet):
    """Hand-made: convolutions at full density, a `pooling` behind each, as in VGG."""

    def __init__(self, pooling: Callable[[], nn.Module]) -> None:
        super().__init__(4, 6, 8)
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inputs in (3, 6, 6):
            layers += [nn.Conv2d(inputs, 6, 3, padding=1), nn.ReLU(), pooling()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Conv2d(6, 4, 3, padding=1)

    def padded_logits(self, x: Tensor) -> Tensor:
        return resize(self.classifier(self.features(x)), x)


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "VGG's": lambda: nn.MaxPool2d(2),
    "SqueezeNet's": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "a mean": lambda: nn.AvgPool2d(2, ceil_mode=True),
}


@pytest.mark.parametrize("form", ["split", "dilated"])
@pytest.mark.parametrize("stride", [4, 1])
@pytest.mark.parametrize("kind", POOLINGS)
def test_poolings_in_both_forms(kind: str, stride: int, form: str) -> None:
    """In the dilated form their paddings may outgrow their kernels, which ONNX Runtime does not run."""
    model = WithPoolings(POOLINGS[kind]).eval()
    lowered = traced(model)
    lower_output_stride(lowered, stride)
    if form == "dilated":
        dilate_split(lowered)
    (found,) = run(lowered, {"x": image().numpy()}).values()
    with torch.no_grad():
        assert_close(found, AtOutputStride(model, stride)(image()).numpy())


@pytest.mark.parametrize("pooling", [lambda: nn.AvgPool2d(3, 2, ceil_mode=True), lambda: nn.AvgPool2d(4, 2, padding=1)])
def test_means_that_count_less_at_the_border_are_refused(pooling: Callable[[], nn.Module]) -> None:
    model = WithPoolings(pooling).eval()
    with pytest.raises(InputError, match="not known at another output stride"):
        lower_output_stride(traced(model), 1)
    with pytest.raises(InputError, match="only averages of whole cells without padding are known"), torch.no_grad():
        AtOutputStride(model, 1)(image())


@pytest.mark.slow
def test_a_ladder_without_a_pyramid_at_8_in_both_forms() -> None:
    model = network("ldn121-32-4,spp=none")
    lowered = traced(model)
    lower_output_stride(lowered, 8)
    with torch.no_grad():
        expected = AtOutputStride(model, 8)(image()).numpy()
    for rewrite in (lambda graph: None, dilate_split):
        rewrite(lowered)
        (found,) = run(lowered, {"x": image().numpy()}).values()
        assert_close(found, expected)


@pytest.mark.parametrize("name", [pytest.param("fcn8s-18", marks=pytest.mark.slow), "deeplabv3-50"])
def test_networks_with_several_maps(name: str) -> None:
    """FCN8s resizes within; DeepLabv3 takes the image's mean and has rates of its own."""
    model = network(name)
    graph = traced(model)
    for stride in (8, 2) if name == "fcn8s-18" else (4, 1):
        lowered = graph.clone()
        lower_output_stride(lowered, stride)
        (found,) = run(lowered, {"x": image().numpy()}).values()
        with torch.no_grad():
            assert_close(found, AtOutputStride(model, stride)(image()).numpy())


def test_deeplabv3_at_8_is_what_it_is_when_it_is_made_for_8() -> None:
    """Twice the rates in layer4 and ASPP (section 3.3), by the network's own code; 4 pixels further."""
    model = network("deeplabv3-50")
    made = create_model("deeplabv3-50,output_stride=8", 7, 4).eval()
    made.load_state_dict(model.state_dict())
    lowered = traced(model)
    lower_output_stride(lowered, 8)
    (found,) = run(lowered, {"x": image().numpy()}).values()
    with torch.no_grad():
        expected = made(image()).numpy()
    assert_close(found[:, :, 4:, 4:], expected[:, :, :-4, :-4])


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("fcn32s-18", 3, "output stride of 3 cannot be"),
        ("fcn32s-18", 32, "output stride is 32, and 32 was asked for"),
        ("smp18", 1, "is split already"),
    ],
)
def test_strides_that_cannot_be_are_refused(name: str, stride: int, message: str) -> None:
    from export.graphs import Rewriting, contract_for, whole_from_network

    with pytest.raises(InputError, match=message):
        whole_from_network(
            network(name), contract_for((HEIGHT, WIDTH), 32, MEAN, STD), rewriting=Rewriting(output_stride=stride)
        )


def test_an_unknown_operator_is_refused() -> None:
    class Reshaping(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            small = F.avg_pool2d(x, 4)
            rows = small.flatten(2).softmax(2).reshape(-1, 3, HEIGHT // 4, WIDTH // 4)
            return F.interpolate(rows, scale_factor=4, mode="bilinear")

    with pytest.raises(InputError, match="goes from 3x16x24 to 3x384, which is not known at another output stride"):
        lower_output_stride(traced(Reshaping().eval()), 2)


@pytest.mark.parametrize("name", ["fcn32s-18", "fcn8s-18", pytest.param("dilatedfcn8-18", marks=pytest.mark.slow)])
def test_at_stride_1_it_is_cut_and_streamed(name: str) -> None:
    """Stem and trunk, a split batch at a time, give what PyTorch gives."""
    from export.graphs import Rewriting, contract_for, graphs_from_network

    model = network(name)
    contract = contract_for((HEIGHT, 90), model.stride, MEAN, STD)
    graphs = graphs_from_network(model, contract, 2, True, Rewriting(output_stride=1))
    assert graphs.cut is not None and graphs.cut.batches == 16
    (frame,) = noise(1, HEIGHT, 90)
    found = interleaved(graphs.parts["stem"], graphs.parts["trunk"], graphs.cut, frame, (HEIGHT, 90))
    with torch.no_grad():
        expected = AtOutputStride(model, 1)(normalised(frame[None])).numpy()[0]
    assert_close(found["logits"], expected)
    whole = ort(graphs.parts["model"], {"frames": frame[None]})
    np.testing.assert_array_equal(found["labels"], whole["labels"][0])
