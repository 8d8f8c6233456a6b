"""Fixtures: `from emulator.fixture import emulator, make_emulator` in a test module or conftest.py."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator.emulation import Emulator

__all__ = ["emulator", "make_emulator"]


@pytest.fixture
def make_emulator() -> Iterator[Callable[..., Emulator]]:
    """A function that starts an emulator; it is closed, and its rules and leaks are checked, at the test's end."""
    started: list[Emulator] = []

    def make(*arguments: Any, **keywords: Any) -> Emulator:
        started.append(Emulator(*arguments, **keywords).start())
        return started[-1]

    yield make
    for each in started:
        each.close()


@pytest.fixture
def emulator(make_emulator: Callable[..., Emulator]) -> Emulator:
    """An emulator with one device."""
    return make_emulator()
