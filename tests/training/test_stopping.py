"""Losses that are no numbers, full disks and kills: what is left behind is whole and of use."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kills import killed_at
from safetensors.torch import load_file
from torch import Tensor
from toy_pictures import toy_set

import training.learning.state
import training.loop
from splitmerge.errors import InputError, VerificationError
from training.checkpoint import load_checkpoint
from training.learning.augment import crops_of_step
from training.loop import TrainConfig, train
from training.networks.smp import SMP

CONFIG = TrainConfig(width=4, crop=(64, 64), batch=4, steps=6, validate_every=3, save_every=2, lr=1e-2)
IMAGES, VALIDATION = toy_set(5, 1), toy_set(2, 2)
LOSS = SMP.loss


def spoilt_at(step: int, spoil) -> object:  # type: ignore[no-untyped-def]
    calls: list[Tensor] = []

    def loss(model: SMP, images: Tensor, labels: Tensor) -> Tensor:
        value = LOSS(model, images, labels)
        calls.append(value)
        return spoil(value) if len(calls) == step + 1 else value

    return loss


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda value: value * float("nan"), "The loss became nan at step 5"),
        (lambda value: value * 1e4, "The loss grew from .* at step 5"),
        # A finite loss whose gradient is infinite would poison the weights, and the next step's crops be blamed.
        (lambda value: value + (value - value.detach()).clamp(min=0).add(1e-42).sqrt(), "gradients became infinite"),
    ],
)
def test_a_step_without_numbers_stops_before_it_and_leaves_its_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil, words: str
) -> None:
    monkeypatch.setattr(SMP, "loss", spoilt_at(5, spoil))
    with pytest.raises(VerificationError, match=words) as error:
        train(CONFIG, IMAGES, VALIDATION, tmp_path / "run")
    assert str(error.value).count(". ") == 0  # one sentence
    crops = crops_of_step(CONFIG, IMAGES, 5)
    saved = load_file(tmp_path / "run" / "diverged.safetensors")
    np.testing.assert_array_equal(saved["images_bgr"].numpy(), crops.images_bgr)
    np.testing.assert_array_equal(saved["labels"].numpy(), crops.labels)
    assert tuple(saved["indices"].tolist()) == crops.indices
    monkeypatch.undo()
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "run" / "last.safetensors").values())
    train(CONFIG, IMAGES, VALIDATION, tmp_path / "run")  # the state of step 4 is whole
    train(CONFIG, IMAGES, VALIDATION, tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, calls = torch.save, []

    def half(value, file):  # type: ignore[no-untyped-def]
        calls.append(value["step"])
        if value["step"] == 4:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        written(value, file)

    monkeypatch.setattr(training.learning.state.torch, "save", half)
    with pytest.raises(InputError, match=r"step 4 cannot be written .*No space left"):
        train(CONFIG, IMAGES, VALIDATION, tmp_path)
    monkeypatch.undo()
    assert calls == [2, 3, 4]
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == 3
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_kill_at_any_step_changes_no_loss(tmp_path: Path, step: int) -> None:
    config = replace(CONFIG, recipe=replace(CONFIG.recipe, scale=(0.5, 2.0), colour=0.3, one_stream=False))
    train(config, IMAGES, VALIDATION, tmp_path / "whole")
    with killed_at(step):
        train(config, IMAGES, VALIDATION, tmp_path / "halves")
    train(config, IMAGES, VALIDATION, tmp_path / "halves")
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")


def test_a_killed_process_with_workers_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """SIGKILL in the middle of a step, while workers hold crops of later ones; then on without workers."""
    code = f"""
import os, signal
from dataclasses import replace
from pathlib import Path
import test_stopping as here, training.loop
take_step = training.loop.take_step
def killed(config, state, batch, out):
    if state.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(config, state, batch, out)
training.loop.take_step = killed
training.loop.train(replace(here.CONFIG, workers=2), here.IMAGES, here.VALIDATION, Path({str(tmp_path / "halves")!r}))
"""
    path = os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "halves" / "resume.pt", weights_only=True)["step"] == 4
    train(CONFIG, IMAGES, VALIDATION, tmp_path / "halves")
    train(CONFIG, IMAGES, VALIDATION, tmp_path / "whole")
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    assert same_weights(tmp_path / "whole", tmp_path / "halves")


def losses(folder: Path) -> list[tuple[str, str, str]]:
    rows = csv.DictReader((folder / "log.csv").open())
    return [(row["step"], row["loss"], row["miou"]) for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "last.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class PowerCut(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("endings", [(".safetensors", ".pt"), pytest.param(("",), marks=pytest.mark.slow)])
def test_a_kill_at_any_write_leaves_what_can_be_read_and_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endings: tuple[str, ...]
) -> None:
    """Before or after a file takes its place: one run for each checkpoint and state, or for every file there is."""
    config = replace(CONFIG, width=2, batch=2, steps=2, validate_every=1, save_every=1)
    moved, written = Path.replace, list[str]()

    def counted(path: Path, target: Path) -> Path:
        written.append(target.name)
        return moved(path, target)

    monkeypatch.setattr(Path, "replace", counted)
    train(config, IMAGES, VALIDATION[:1], tmp_path / "whole")
    assert len(written) >= 12  # both validations' logs, pictures, checkpoints and states
    for kill in [index for index, name in enumerate(written) if name.endswith(endings)]:
        folder, left = tmp_path / str(kill), kill

        def killed(path: Path, target: Path, kill: int = kill) -> Path:
            nonlocal left
            left -= 1
            if left == -1 and kill % 2:
                raise PowerCut
            place = moved(path, target)
            if left == -1:
                raise PowerCut
            return place

        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(PowerCut):
            train(config, IMAGES, VALIDATION[:1], folder)
        monkeypatch.setattr(Path, "replace", moved)
        for path in folder.glob("*.safetensors"):
            assert load_checkpoint(path).notes["step"] in (1, 2)
        train(config, IMAGES, VALIDATION[:1], folder)
        assert same_weights(folder, tmp_path / "whole"), kill
        assert losses(folder) == losses(tmp_path / "whole"), kill
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}, kill
