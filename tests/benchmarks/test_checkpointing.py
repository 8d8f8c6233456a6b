"""The counted memory is that of a real step, and near the paper's."""

import json
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from benchmarks.checkpointing import TABLE_11, main, peak_bytes
from training.recompute import PLANS


def test_a_peak_is_what_is_alive_at_once() -> None:
    """Four images of 64x64 through FCN32s: at least its input, weights and gradients, at most all that is ever made."""
    peak = peak_bytes("fcn32s-18", "off", 4, 64, width=4)
    made = 0

    class Adding(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
            nonlocal made
            out = function(*arguments, **(keywords or {}))
            made += sum(part.nbytes for part in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(part))
            return out

    from training.models import create_model

    model, x = create_model("fcn32s-18", width=4).train(), torch.randn(4, 3, 64, 64)
    with Adding():
        model.loss(x, torch.zeros(4, 64, 64, dtype=torch.int64)).backward()
    weights = sum(p.nbytes for p in model.parameters())
    assert 2 * weights + x.nbytes < peak < made + 2 * weights + x.nbytes


def test_the_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = ["--model", "lrn18-32-4", "--plans", "off", "full", "--rounds", "1"]
    sizes = ["--batch", "2", "--size", "64", "--timed-batch", "2", "--timed-size", "32"]
    monkeypatch.setattr(sys, "argv", ["checkpointing", *what, *sizes, "--json", str(tmp_path / "a.json")])
    assert main() == 0
    found = {row["plan"]: row for row in json.loads((tmp_path / "a.json").read_text())["rows"]}
    assert list(found) == ["off", "full"] and PLANS.keys() == TABLE_11.keys()
    assert found["off"]["peak_share"] == found["off"]["rate_share"] == 1
    assert found["full"]["peak_share"] < 1 and found["full"]["step_s"] > 0


@cache
def megabytes(plan: str) -> float:
    """Of Table 11's step: ldn121-32-4 at batch 6 and 768x768."""
    return peak_bytes("ldn121-32-4", plan, 6, 768) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("plan", TABLE_11)
def test_the_papers_steps_take_the_papers_memory(plan: str) -> None:
    """Table 11: an allocator's megabytes against counted tensors."""
    assert megabytes(plan) == pytest.approx(TABLE_11[plan][0], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("plan", TABLE_11)
def test_a_plan_saves_what_it_saves_in_the_paper(plan: str) -> None:
    """Table 11's shares of the step without checkpointing, within 4 points of a hundred."""
    expected = TABLE_11[plan][0] / TABLE_11["off"][0]
    assert megabytes(plan) / megabytes("off") == pytest.approx(expected, abs=0.04)
