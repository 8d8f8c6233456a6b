"""The training loop: it learns, resumes exactly, and refuses what it cannot do."""

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kills import killed_at
from safetensors.torch import load_file
from toy_pictures import toy_set

import training.loop
from splitmerge.errors import CheckpointError, InputError
from training.checkpoint import load_checkpoint
from training.evaluate import confusion_of, normalise, predict
from training.interrupts import interrupts_wait
from training.loop import TrainConfig, train
from training.metrics import mean_iou
from training.models import create_model
from training.networks.smp import SMP

CONFIG = TrainConfig(width=4, crop=(64, 64), batch=4, steps=6, validate_every=3, save_every=2, lr=1e-2)


def test_it_learns_to_tell_colours_apart(tmp_path: Path) -> None:
    config = TrainConfig(width=8, crop=(64, 64), batch=16, steps=120, validate_every=60, lr=1e-2)
    miou = train(config, toy_set(20, 1), toy_set(4, 2), tmp_path)
    assert miou > 0.9
    checkpoint = load_checkpoint(tmp_path / "best.safetensors")
    assert mean_iou(confusion_of(checkpoint.model, toy_set(4, 2))) > 0.9
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["60", "120"]
    assert json.loads((tmp_path / "config.json").read_text())["width"] == 8


@pytest.mark.parametrize("model", ["smp18", "fcn8s-18"])
def test_resuming_takes_the_steps_of_an_uninterrupted_run(tmp_path: Path, model: str) -> None:
    config = replace(CONFIG, model=model)
    images, validation = toy_set(5, 1), toy_set(2, 2)
    train(config, images, validation, tmp_path / "whole")

    with killed_at(5):
        train(config, images, validation, tmp_path / "halves")
    assert torch.load(tmp_path / "halves" / "resume.pt", weights_only=True)["step"] == 4
    train(config, images, validation, tmp_path / "halves")
    for name in ("last", "best"):
        whole = load_file(tmp_path / "whole" / f"{name}.safetensors")
        halves = load_file(tmp_path / "halves" / f"{name}.safetensors")
        assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_checkpointing_takes_the_same_steps_and_may_change_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, model="ldn121-64-4", width=2, batch=2, steps=4, validate_every=2)
    images, validation = toy_set(3, 1), toy_set(1, 2)
    train(config, images, validation, tmp_path / "plain")
    full, step = replace(config, checkpointing="full"), training.loop.take_step

    def killed(config, state, batch, out):  # type: ignore[no-untyped-def]
        if state.step == 2:
            raise RuntimeError("out of memory")
        return step(config, state, batch, out)

    monkeypatch.setattr(training.loop, "take_step", killed)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, images, validation, tmp_path / "other")
    monkeypatch.undo()
    train(full, images, validation, tmp_path / "other")
    plain, other = (load_file(tmp_path / name / "last.safetensors") for name in ("plain", "other"))
    assert all(torch.equal(plain[key], other[key]) for key in plain)
    assert json.loads((tmp_path / "other" / "config.json").read_text())["checkpointing"] == "full"


def test_checkpointing_that_saves_nothing_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="save nothing in SMPResNet"):
        replace(CONFIG, checkpointing="blocks")


def test_ctrl_c_leaves_a_state_to_resume_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a step, where batch norm has already changed: the step is finished and then saved."""
    images, validation = toy_set(5, 1), toy_set(2, 2)
    train(CONFIG, images, validation, tmp_path / "whole")
    loss_of, calls = SMP.loss, []

    def pressed(*arguments):  # type: ignore[no-untyped-def]
        loss = loss_of(*arguments)
        calls.append(loss)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return loss

    monkeypatch.setattr(SMP, "loss", pressed)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, images, validation, tmp_path / "halves")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert torch.load(tmp_path / "halves" / "resume.pt", weights_only=True)["step"] == 4
    train(CONFIG, images, validation, tmp_path / "halves")
    whole, halves = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_a_second_ctrl_c_does_not_wait() -> None:
    with interrupts_wait() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_seed_one_result(tmp_path: Path) -> None:
    images, validation = toy_set(5, 1), toy_set(1, 2)
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(CONFIG, seed=seed, steps=3), images, validation, tmp_path / name)
        weights.append(load_file(tmp_path / name / "last.safetensors")["classifier.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 32"):
        train(TrainConfig(crop=(100, 128)), toy_set(1, 0), toy_set(1, 0), tmp_path)
    with pytest.raises(InputError, match="no images"):
        train(CONFIG, [], [], tmp_path)
    with pytest.raises(InputError, match="to validate on"):
        train(CONFIG, toy_set(1, 0), [], tmp_path)
    for name in ("steps", "batch", "validate_every"):
        with pytest.raises(InputError, match=f"{name} 0"):
            train(replace(CONFIG, **{name: 0}), toy_set(1, 0), toy_set(1, 0), tmp_path)
    with pytest.raises(InputError, match="learning rate of nan"):
        train(replace(CONFIG, lr=float("nan")), toy_set(1, 0), toy_set(1, 0), tmp_path)
    with pytest.raises(InputError, match="smaller --crop"):
        train(TrainConfig(crop=(128, 256)), toy_set(1, 0), toy_set(1, 0), tmp_path)
    assert not list(tmp_path.iterdir())


def test_resuming_with_another_configuration_is_refused(tmp_path: Path) -> None:
    train(CONFIG, toy_set(2, 1), toy_set(1, 2), tmp_path)
    with pytest.raises(InputError, match=r"lr 0\.01, not 0\.5"):
        train(replace(CONFIG, lr=0.5), toy_set(2, 1), toy_set(1, 2), tmp_path)
    (tmp_path / "resume.pt").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="delete it to start anew"):
        train(CONFIG, toy_set(2, 1), toy_set(1, 2), tmp_path)


@pytest.mark.parametrize("stride", [2, 4, 32])
def test_a_sparse_prediction_repeats_the_computed_pixels(stride: int) -> None:
    torch.manual_seed(0)
    model = create_model("smp18", 5, 4).eval()
    image = normalise(torch.randint(256, (1, 50, 70, 3), dtype=torch.uint8))
    full, sparse = predict(model, image), predict(model, image, stride)
    middle = np.s_[stride // 2 :: stride, stride // 2 :: stride]
    np.testing.assert_array_equal(sparse[middle], full[middle])
    rows, columns = np.indices(full.shape) // stride * stride + stride // 2
    inside = (rows < full.shape[0]) & (columns < full.shape[1])
    np.testing.assert_array_equal(sparse[inside], full[rows[inside], columns[inside]])


def test_other_windows_learn_and_are_scored(tmp_path: Path) -> None:
    config = replace(CONFIG, model="smp18,windows=3.2.2.2.2", crop=(48, 96), stride=6)
    assert 0 <= train(config, toy_set(2, 1), toy_set(1, 2), tmp_path) <= 1


@pytest.mark.parametrize(
    ("model", "crop", "stride", "words"),
    [
        ("smp18,windows=3.2.2.2.2", (64, 96), 6, "64x96 must be a multiple of 48"),
        ("smp18,windows=3.2.2.2.2", (48, 96), 4, "choose one of 1, 3, 6, 12, 24, 48"),
        ("smp18", (64, 96), 12, "choose one of 1, 2, 4, 8, 16, 32"),
    ],
)
def test_crops_and_strides_that_the_windows_do_not_make(
    model: str, crop: tuple[int, int], stride: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        replace(CONFIG, model=model, crop=crop, stride=stride)


def test_normalising_turns_blue_green_red_round() -> None:
    frame = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    frame[..., 2] = 255  # red
    out = normalise(frame, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    assert out.shape == (1, 3, 2, 2)
    assert out[0, :, 0, 0].tolist() == [1.0, -1.0, 0.0]


def test_a_crop_without_a_single_label_costs_nothing() -> None:
    model = create_model("smp18", 5, 4).train()
    loss = model.loss(torch.randn(2, 3, 64, 64), torch.full((2, 64, 64), 255))
    assert float(loss.detach()) == 0.0


def test_a_later_image_that_is_too_small_is_named(tmp_path: Path) -> None:
    images = [*toy_set(1, 0), *toy_set(1, 0, (32, 64))]
    with pytest.raises(InputError, match=r"Image 1 of streets is 32x64"):
        train(CONFIG, images, toy_set(1, 2), tmp_path)
