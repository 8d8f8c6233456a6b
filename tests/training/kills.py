"""A power cut in the middle of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import training.loop


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """A training inside ends before it takes the step after `step`, as if by a power cut."""
    take_step = training.loop.take_step

    def killed(config, state, batch, out):
        if state.step == step:
            raise RuntimeError("power cut")
        return take_step(config, state, batch, out)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(training.loop, "take_step", killed)
        yield
