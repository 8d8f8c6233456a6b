"""Grid by grid: the same network, in memory that does not grow as the whole network's does."""

import weakref
from collections.abc import Callable

import pytest
import torch
from networks import with_statistics
from torch.utils._python_dispatch import TorchDispatchMode

from training.grids import grids, labels_of, logits_of
from training.models import create_model
from training.networks.smp import SMP
from training.scales import mean_probabilities


class Memory(TorchDispatchMode):
    """Bytes of what operators make: the most alive at a time, and the largest tensor's elements."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak, self.largest, self.known = 0, 0, 0, set[int]()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.alive += storage.nbytes()
                    self.peak = max(self.peak, self.alive)
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def memory_of(function: Callable[[], object]) -> Memory:
    with torch.inference_mode(), Memory() as memory:
        function()
    return memory


def small(name: str = "smp18", classes: int = 19, width: int = 4) -> SMP:
    torch.manual_seed(1)
    model = with_statistics(create_model(name, classes, width))
    assert isinstance(model, SMP)
    return model


@pytest.mark.parametrize(
    ("name", "size", "steps"),
    [
        ("smp18", (64, 96), (2, 8)),
        ("smp18", (70, 100), (4,)),
        ("smp50", (64, 64), (4,)),
        ("smp18,windows=3.2.2.2.2", (50, 100), (3,)),
        ("smp-dn121", (64, 64), (4,)),
    ],
)
def test_grid_by_grid_is_the_same_network(name: str, size: tuple[int, int], steps: tuple[int, ...]) -> None:
    """Labels are the whole network's but where its two best logits are within 1e-4 of each other."""
    model, x = small(name), torch.randn(2, 3, *size)
    with torch.inference_mode():
        logits = model(x)
        best = logits.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 1e-4 * logits.abs().max()
        for step in steps:
            largest = 2 * size[0] * size[1] * model.stage_channels[-1] // step**2
            assert {grid.stride for grid in grids(model, x, largest=largest)} == {step}
            labels = labels_of(model, x, largest=largest)
            assert labels.shape == (2, *size) and labels.dtype == torch.uint8
            assert torch.equal(labels[clear], logits.argmax(1)[clear].to(torch.uint8))
            streamed = logits_of(model, x, largest)
            torch.testing.assert_close(streamed, logits, rtol=0, atol=1e-4 * float(logits.abs().max()))
    assert clear.float().mean() > 0.99


@pytest.mark.parametrize("stride", [2, 4])
def test_a_sparse_prediction_may_be_computed_in_parts_too(stride: int) -> None:
    model, x, largest = small(), torch.randn(1, 3, 70, 100), 70 * 100 * 32 // 8**2
    with torch.inference_mode():
        whole, parts = labels_of(model, x, stride), labels_of(model, x, stride, largest=largest)
        assert {grid.stride for grid in grids(model, x, 1, 1, stride, largest)} == {8}
    assert parts.shape == whole.shape == (1, 70, 100)
    assert (parts == whole).float().mean() > 0.999


def test_the_whole_takes_sixteen_times_the_memory_of_sixteen_grids() -> None:
    """Its widest tensors are those of the last stage, whose channels are 8 times the first's at every pixel."""
    model, x = small(width=8), torch.randn(1, 3, 64, 128)
    pixels, bound = 64 * 128, 64 * 128 * 64 // 16
    whole = memory_of(lambda: model(x).argmax(1))
    streamed = memory_of(lambda: labels_of(model, x, largest=bound))
    assert whole.largest == 64 * pixels
    assert streamed.largest <= bound
    assert whole.peak > 12 * streamed.peak
    assert streamed.peak < 8 * 4 * bound + pixels


def test_what_is_alive_grows_with_the_image_by_what_the_first_level_leaves_alone() -> None:
    """Four times the pixels: the features do not grow, but the first level's (width / 4 a pixel) and the image do."""
    model, bound = small(), 64 * 128 * 32 // 16
    x, larger = torch.randn(1, 3, 64, 128), torch.randn(1, 3, 128, 256)
    peaks = [memory_of(lambda x=x: labels_of(model, x, largest=bound)).peak for x in (x, larger)]
    whole = memory_of(lambda: model(larger).argmax(1)).peak
    first_level = 4 * larger[0, 0].numel() * 4 // 4
    assert peaks[1] < peaks[0] + 4 * first_level
    assert whole > 32 * peaks[1]


def test_multi_scale_streams_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small(classes=3), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        whole = mean_probabilities(model, x, (0.5, 1.5), True)
        monkeypatch.setattr("training.grids.LARGEST_TENSOR", 96 * 144 * 32 // 16)
        memory = memory_of(lambda: mean_probabilities(model, x, (0.5, 1.5), True))
        parts = mean_probabilities(model, x, (0.5, 1.5), True)
    assert memory.largest <= max(96 * 144 * 32 // 16, 3 * (96 + 5) * (160 + 5))  # the image, padded
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(parts.sum(1), torch.ones(1, 64, 96))
