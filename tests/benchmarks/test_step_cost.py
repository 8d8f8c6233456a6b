"""Steps that cost what they should: counted memory, shares of the strided step, the steps' own losses."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import step_cost
from benchmarks.step_cost import FORMS, REFERENCE, Form, Step, main, peak_bytes, rows
from training.networks.base import cross_entropy
from training.networks.smp import SMP
from training.reduction import SplitMerge


def test_rows_are_medians_and_shares_of_the_strided_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which the forms' steps take 1, 2, 3 and 4 seconds, and ten times as long in the second round."""
    monkeypatch.setattr(step_cost, "peak_bytes", lambda form, *_: 2**20 * (3 if form == FORMS[2] else 2))
    lengths = iter([1, 2, 3, 4, 10, 20, 30, 40, 1, 2, 3, 4])
    ticks = itertools.chain.from_iterable((100 * i, 100 * i + length) for i, length in enumerate(lengths))
    found = list(rows(18, 2, 2, (64, 64), 3, clock=lambda: float(next(ticks))))
    assert [row["form"] for row in found] == [form.title for form in FORMS]
    assert [row["step_ms"] for row in found] == [1000, 2000, 3000, 4000]
    assert [row["time_share"] for row in found] == [0.5, 1, 1.5, 2]
    assert [(row["peak_mb"], row["memory_share"]) for row in found] == [(2, 1), (2, 1), (3, 1.5), (2, 1)]
    assert [row["slowest_ms"] for row in found] == [10000, 20000, 30000, 40000]


def test_a_shrunk_step_keeps_what_the_strided_one_keeps() -> None:
    """At 4 crops of 128x256 and width 16: within a tenth. Logits of every pixel are what FCN32s's own loss adds."""
    strided, shrunk, finer, dense = (
        peak_bytes(form, 18, 16, 4, (128, 256)) for form in (REFERENCE, FORMS[2], FORMS[3], FORMS[0])
    )
    weights = sum(p.nbytes for p in Step(REFERENCE, 18, 16, 4, (64, 64)).model.parameters())
    assert strided > 4 * weights  # with gradients and AdamW's two moments
    assert 0.9 < shrunk / strided < 1.1
    assert finer > shrunk
    assert dense > strided + 4 * 128 * 256 * 19 * 4 / 2


def test_each_form_takes_the_loss_it_says() -> None:
    crop = (64, 96)
    for form in FORMS:
        step = Step(form, 18, 2, 2, crop)
        step.model.eval()
        if isinstance(step.model, SMP):
            reduction = SplitMerge.at(5, 9, form.stride)
            drawn = np.s_[5 :: form.stride, 9 :: form.stride]
            expected = cross_entropy(step.model(step.images)[(..., *drawn)], step.labels[(..., *drawn)])
        elif form.stride == 1:
            reduction, expected = None, cross_entropy(step.model(step.images), step.labels)
        else:
            reduction, kept = None, []
            step.model.classifier.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out))
            step.model(step.images)
            expected = cross_entropy(kept[0], step.labels[:, 16::32, 16::32])
        found = step.loss(step.images, step.labels, reduction)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_step_changes_the_weights() -> None:
    step = Step(Form("smp", 16), 18, 2, 1, (64, 64))
    before = step.model.classifier.weight.clone()
    step.take()
    assert not torch.equal(before, step.model.classifier.weight)


def test_the_table_and_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_cost, "peak_bytes", lambda *_: 2**20)
    what = ["--depths", "18", "--widths", "2", "3", "--batch", "1", "--crop", "64x64", "--rounds", "1"]
    assert main([*what, "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert [row["width"] for row in found["rows"]] == [2] * 4 + [3] * 4
    assert capsys.readouterr().out.count("| 18, 3 | smp, stride") == 2
    assert main([*what, "--crop", "60x64"]) == 2
    assert "must be a multiple of 32" in capsys.readouterr().err
