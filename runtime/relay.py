"""Several threads that each take the newest item when they are free; results leave in the order of taking."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["relay"]

A = TypeVar("A")
B = TypeVar("B")


def relay(
    work: Callable[[A], B],
    items: Iterator[A],
    deliver: Callable[[B], None],
    parallel: int,
    limit: int | None,
    stop: Callable[[], None],
) -> None:
    """`work` of items, by `parallel` threads (the calling one is the first), each result given to `deliver` as soon as
    those before it were. Ends with the items or after `limit` of them.

    Unlike `runtime.ordered.in_order`, nobody holds an item before it can be worked at, and no result waits for a
    further item. `stop` must end the items, for threads that wait for one when another failed. Raises the first error.
    """
    taking, turn = threading.Lock(), threading.Condition()
    taken = delivered = 0
    errors: list[BaseException] = []

    def run() -> None:
        nonlocal taken, delivered
        while True:
            with taking:
                if errors or taken == limit:
                    return
                try:
                    item = next(items)
                except StopIteration:
                    return
                mine, taken = taken, taken + 1
            result = work(item)
            with turn:
                while not errors and delivered != mine:
                    turn.wait()
                if errors:
                    return
                deliver(result)
                delivered += 1
                turn.notify_all()

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            with turn:
                errors.append(error)
                turn.notify_all()
            stop()

    others = [threading.Thread(target=guarded, name=f"compute-{i}") for i in range(1, parallel)]
    for thread in others:
        thread.start()
    guarded()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
