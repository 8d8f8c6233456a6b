"""Several at once, in order."""

import threading
import time

import pytest

from runtime.ordered import AHEAD, in_order


@pytest.mark.parametrize("parallel", [1, 2, 5])
def test_results_come_in_order_whatever_is_done_first(parallel: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)  # every third is the slowest
        return item * item

    assert list(in_order(work, range(20), parallel)) == [i * i for i in range(20)]


def test_parallel_ones_are_at_work_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def work(item: int) -> int:
        together.wait(20)  # breaks if fewer than three are at it
        return item

    assert list(in_order(work, range(6), 3)) == list(range(6))


def test_no_more_items_are_taken_than_can_be_worked_on() -> None:
    taken, done = [], []

    def items():
        for item in range(30):
            taken.append(item)
            yield item

    for result in in_order(lambda item: item, items(), 4):
        done.append(result)
        assert len(taken) - len(done) <= 4 * AHEAD + 1


def test_a_slow_worker_does_not_hold_up_the_others() -> None:
    """The first item is done only after four others were, which only two workers can have done."""
    later = threading.Semaphore(0)

    def work(item: int) -> int:
        if item == 0:
            assert all(later.acquire(timeout=20) for _ in range(4))
        else:
            later.release()
        return item

    assert list(in_order(work, range(9), 2)) == list(range(9))


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_error_ends_it_and_leaves_no_thread(parallel: int) -> None:
    before = threading.active_count()

    def work(item: int) -> int:
        if item == 4:
            raise ValueError("four")
        return item

    results = []
    with pytest.raises(ValueError, match="four"):
        for result in in_order(work, range(100), parallel):
            results.append(result)
    assert results == [0, 1, 2, 3]
    assert threading.active_count() == before
