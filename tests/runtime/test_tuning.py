"""Choosing the number of contexts: stands still at the fastest, and where no more can be had."""

from pathlib import Path

import numpy as np
import pytest
from small_package import make_package

import runtime.tuning
from engines.build import build_engines
from runtime.executor import Executor
from runtime.tuning import tune_contexts
from splitmerge.errors import EngineError

FRAME_MS = {1: 10.0, 2: 6.0, 3: 5.0, 4: 4.9, 5: 1.0}


class Fake:
    """An executor of which only the time with so many contexts is known."""

    open = 0

    def __init__(self, contexts: int, at_most: int = 99) -> None:
        self.contexts, Fake.open = min(contexts, at_most), Fake.open + 1
        assert Fake.open == 1, "two executors at once might not fit"

    def close(self) -> None:
        Fake.open -= 1


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.open = 0
    monkeypatch.setattr(runtime.tuning, "_measure", lambda executor, frames: FRAME_MS[executor.contexts])


def test_it_stops_where_a_further_context_is_no_faster(times: None) -> None:
    tuned = tune_contexts(Fake)
    assert tuned.executor.contexts == 3
    assert tuned.milliseconds == {1: 10.0, 2: 6.0, 3: 5.0, 4: 4.9}
    assert str(tuned).startswith("3 (a frame with 1: 10.0 ms, 2: 6.0 ms,")
    assert Fake.open == 1


def test_it_takes_as_many_as_fit(times: None) -> None:
    def make(contexts: int) -> Fake:
        if contexts == 3:
            raise EngineError("no room")
        return Fake(contexts)

    tuned = tune_contexts(make)
    assert tuned.executor.contexts == 2
    assert "3 cannot be had: no room" in str(tuned)


def test_it_stops_where_split_batches_run_out(times: None) -> None:
    assert tune_contexts(lambda contexts: Fake(contexts, at_most=2)).executor.contexts == 2


def test_not_even_one_is_an_error() -> None:
    def make(contexts: int) -> Fake:
        raise EngineError("no room")

    with pytest.raises(EngineError, match="no room"):
        tune_contexts(make)


def test_with_real_executors(tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    build_engines(package)
    tuned = tune_contexts(lambda contexts: Executor(package, contexts=contexts), frames=1)
    with tuned.executor as executor:
        assert executor.contexts in tuned.milliseconds
        assert executor.segment(np.zeros((*package.manifest.input.size, 3), np.uint8)).shape == (45, 70)
