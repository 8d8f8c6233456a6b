"""Work on several items at the same time, results in the items' order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["AHEAD", "in_order"]

AHEAD = 3

A = TypeVar("A")
B = TypeVar("B")


def in_order(work: Callable[[A], B], items: Iterable[A], parallel: int) -> Iterator[B]:
    """`work` of each item, at most `parallel` of them at once; one alone is done in the calling thread.

    At most AHEAD times as many are begun before the earliest is done: enough for a worker that takes so many times as
    long as the others not to hold them up. Raises what `work` and `items` raise, after the work that was
    begun has ended.
    """
    if parallel == 1:
        yield from map(work, items)
        return
    begun: deque[Future[B]] = deque()
    with ThreadPoolExecutor(parallel, thread_name_prefix="compute") as pool:
        try:
            for item in items:
                if len(begun) == AHEAD * parallel:
                    yield begun.popleft().result()
                begun.append(pool.submit(work, item))
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
