"""Pooling layers against plain slicing, and the fused training form against stride 1 followed by shrinking."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.layers import (
    ExpandPool,
    MergePool,
    ShrinkPool,
    SplitPool,
    conv_shrink,
    draw_offset,
    expand_pool,
    merge_pool,
    shrink_pool,
    split_pool,
)

windows = st.tuples(st.integers(1, 5), st.integers(1, 5))


def image(n: int, c: int, height: int, width: int) -> torch.Tensor:
    """Distinct values, so that any misplaced pixel shows."""
    return torch.arange(n * c * height * width, dtype=torch.float64).reshape(n, c, height, width)


@settings(max_examples=50, deadline=None)
@given(windows, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_split_is_slicing_and_merge_undoes_it(window: tuple[int, int], n: int, c: int, h: int, w: int) -> None:
    rows, columns = window
    x = image(n, c, h * rows, w * columns)
    split = split_pool(x, window)
    assert split.shape == (n * rows * columns, c, h, w)
    for i, row, column in itertools.product(range(n), range(rows), range(columns)):
        expected = x.numpy()[i, :, row::rows, column::columns]  # Eq. 1
        np.testing.assert_array_equal(split[i * rows * columns + row * columns + column].numpy(), expected)
    assert torch.equal(merge_pool(split, window), x)


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_merging_undoes_every_level(levels: int) -> None:
    x = y = image(2, 3, 64, 96)
    for _ in range(levels):
        y = split_pool(y)
    assert y.shape == (2 * 4**levels, 3, 64 >> levels, 96 >> levels)
    for _ in range(levels):
        y = merge_pool(y)
    assert torch.equal(x, y)


@settings(max_examples=50, deadline=None)
@given(windows, st.data())
def test_shrink_is_one_split_batch_and_expand_puts_it_back(window: tuple[int, int], data: st.DataObject) -> None:
    rows, columns = window
    offset = (data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1)))
    x = image(1, 2, 3 * rows, 2 * columns)
    small = shrink_pool(x, offset, window)
    assert torch.equal(small, split_pool(x, window)[offset[0] * columns + offset[1]][None])
    sparse = expand_pool(small, offset, window)
    mask = np.zeros(sparse.shape, bool)
    mask[:, :, offset[0] :: rows, offset[1] :: columns] = True
    np.testing.assert_array_equal(sparse.numpy(), np.where(mask, x.numpy(), 0))


def test_gradients_pass_only_where_pixels_were_sampled() -> None:
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    (expand_pool(shrink_pool(x, (1, 0)), (1, 0)) * weight).sum().backward()
    expected = torch.zeros_like(weight)
    expected[:, :, 1::2, 0::2] = weight[:, :, 1::2, 0::2]
    assert x.grad is not None
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("window", [2, (2, 3)])
def test_gradcheck(window: int | tuple[int, int]) -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: split_pool(t, window), x)
    assert torch.autograd.gradcheck(lambda t: merge_pool(split_pool(t, window), window), x)
    assert torch.autograd.gradcheck(lambda t: expand_pool(shrink_pool(t, (1, 1), window), (1, 1), window), x)


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("window", [(2, 2), (1, 2), (3, 2), (4, 4)])
def test_conv_shrink_equals_stride_one_then_shrink(kernel: int, window: tuple[int, int]) -> None:
    """Forward, and backward in the input, the weight and the bias, at every offset."""
    conv = nn.Conv2d(3, 4, kernel, padding=kernel // 2, dtype=torch.float64)
    x = torch.randn(2, 3, 12, 24, dtype=torch.float64, requires_grad=True)
    parameters = [x, conv.weight, conv.bias]
    for offset in itertools.product(range(window[0]), range(window[1])):
        slow = shrink_pool(conv(x), offset, window)
        fast = conv_shrink(conv, x, offset, window)
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
        weight = torch.randn_like(slow)
        for a, b in zip(
            torch.autograd.grad((fast * weight).sum(), parameters),
            torch.autograd.grad((slow * weight).sum(), parameters),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_modules_are_the_functions() -> None:
    x = image(2, 3, 6, 8)
    assert torch.equal(SplitPool((3, 2))(x), split_pool(x, (3, 2)))
    assert torch.equal(MergePool((3, 2))(split_pool(x, (3, 2))), x)
    shrink = ShrinkPool(2, torch.Generator().manual_seed(3))
    expand = ExpandPool(shrink)
    small = shrink(x)
    assert torch.equal(small, shrink_pool(x, shrink.offset))
    assert torch.equal(expand(small), expand_pool(small, shrink.offset))
    assert not list(expand.parameters()) and not list(expand.children())


def test_offsets_come_from_the_seed_and_reach_every_pixel() -> None:
    def draws(seed: int) -> list[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed)
        return [draw_offset((2, 3), generator) for _ in range(200)]

    assert draws(1) == draws(1) != draws(2)
    assert set(draws(1)) == set(itertools.product(range(2), range(3)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: split_pool(x, 2), "pad to 6x8"),
        (lambda x: shrink_pool(x, (0, 0), 2), "pad to 6x8"),
        (lambda x: shrink_pool(x[:, :, :, :5], (5, 0), 5), "outside the 5x5 window"),
        (lambda x: expand_pool(x, (0, 2), 2), "outside the 2x2 window"),
        (lambda x: merge_pool(x, 2), "no multiple of 4"),
        (lambda x: split_pool(x, (0, 1)), "at least 1x1"),
        (lambda x: conv_shrink(nn.Conv2d(1, 1, 2), x[:, :, :4, :6], (0, 0)), "odd kernel"),
    ],
)
def test_what_cannot_be_is_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        call(image(1, 1, 5, 7))
