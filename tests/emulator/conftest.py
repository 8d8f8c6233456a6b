"""The emulator's fixtures, and boxes for its own tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from emulator import Emulator
from emulator.fixture import emulator, make_emulator
from emulator.samples import Box

__all__ = ["box", "emulator", "make_emulator", "start"]


@pytest.fixture
def start(make_emulator: Callable[..., Emulator]) -> Iterator[Callable[..., Box]]:
    """A function that gives a box with the context of device 0 current; it takes what Emulator takes."""
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Box:
            box = Box(make_emulator(*arguments, **options))
            box.init()
            stack.callback(box.end)
            stack.enter_context(box.use(0))
            return box

        yield make


@pytest.fixture
def box(start: Callable[..., Box]) -> Box:
    """A box with one device."""
    return start()
