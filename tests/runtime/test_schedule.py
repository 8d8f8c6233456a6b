"""The Bayer order and the chunks cut from it."""

import pytest

from runtime.schedule import bayer_order, chunks, split_batch_order
from splitmerge.errors import InputError

WINDOWS = [(1, 1), (1, 4), (2, 2), (2, 4), (3, 5), (4, 4), (8, 8), (8, 2), (32, 32)]


@pytest.mark.parametrize("window", WINDOWS)
def test_every_pixel_once(window: tuple[int, int]) -> None:
    rows, columns = window
    assert sorted(bayer_order(rows, columns)) == [(k, m) for k in range(rows) for m in range(columns)]


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_prefixes_of_four_to_the_i_are_regular_grids(bits: int) -> None:
    side = 1 << bits
    order = bayer_order(side, side)
    for i in range(bits + 1):
        step = side >> i
        begin = side // 2 if i == 0 else 0
        assert set(order[: 4**i]) == {(k, m) for k in range(begin, side, step) for m in range(begin, side, step)}


def test_two_batches_are_a_quincunx() -> None:
    assert bayer_order(4, 4)[:2] == [(2, 2), (0, 0)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("order", ["bayer", "index"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 2000])
def test_chunks_hold_every_batch_once(window: tuple[int, int], order: str, size: int) -> None:
    indices = split_batch_order(order, *window)
    runs = chunks(indices, size)
    assert sorted(i for run in runs for i in run) == sorted(indices)
    assert all(1 <= len(run) <= size for run in runs)


def test_chunks_of_one_keep_the_order() -> None:
    order = split_batch_order("bayer", 4, 4)
    assert [run.start for run in chunks(order, 1)] == order


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="choose one of bayer, index"):
        split_batch_order("spiral", 4, 4)
    with pytest.raises(InputError, match="choose 1 or more"):
        chunks([0], 0)
