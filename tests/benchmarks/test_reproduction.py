"""Several seeds as tables, curves and a verdict; what was scored is not scored again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from benchmarks import reproduction
from benchmarks.reproduction import confusions_of, finished_runs, main
from benchmarks.reproduction_picture import draw
from benchmarks.reproduction_table import ORDER, Network, density_table, table, verdict
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, THIN_CLASSES
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data import open_dataset
from training.evaluate import normalise
from training.models import create_model

SIZE = (64, 128)
NOTES = {"width": 2, "data": "streets", "crop": [64, 64], "size": [64, 128], "images": 4, "batch": 2, "steps": 9}


def write_run(folder: Path, model: str, seed: int, step: int = 9, **other: Any) -> None:
    torch.manual_seed(seed)
    (folder / f"{model}-{seed}").mkdir(parents=True)
    notes = {**NOTES, "seed": seed, "step": step} | other
    network = create_model(model, 19, 2)
    save_checkpoint(folder / f"{model}-{seed}" / "last.safetensors", network, model, CITYSCAPES, notes)
    (folder / f"{model}-{seed}" / "config.json").write_text(json.dumps(notes))


def scored(model: str, *mious: float, strides: tuple[int, ...] = (1,)) -> Network:
    """A network of these mIoU by seed, whose thin classes score half; a tenth less at each halving of the density."""
    shape = np.array([0.5 if entry.name in THIN_CLASSES else 1.0 for entry in CITYSCAPES])
    values = [shape * miou / shape.mean() for miou in mious]
    return Network(model, {seed: {s: value * 0.9 ** np.log2(s) for s in strides} for seed, value in enumerate(values)})


def paper(**changed: Network) -> list[Network]:
    found = {"smp34": scored("smp34", 0.8, 0.82), "smp18": scored("smp18", 0.78, 0.8, strides=(2, 1))}
    found |= {"fcn8s-18": scored("fcn8s-18", 0.6, 0.7), "fcn32s-18": scored("fcn32s-18", 0.5, 0.4)}
    return list((found | changed).values())


def test_runs_are_scored_once_and_an_interrupted_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, seed in (("smp18", 0), ("smp18", 1), ("fcn32s-18", 0)):
        write_run(tmp_path / "runs", model, seed)
    write_run(tmp_path / "runs", "smp34", 0, step=8)
    (tmp_path / "runs" / "notes").mkdir()
    command = [
        "--runs",
        str(tmp_path / "runs"),
        "--images",
        "2",
        "--size",
        "64x128",
        "--cache",
        str(tmp_path / "cache"),
    ]
    command += ["--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")]
    plain, calls = confusions_of, []

    def pressed(checkpoint, images, progress=None):
        calls.append(checkpoint.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(checkpoint, images, progress)

    monkeypatch.setattr(reproduction, "confusions_of", pressed)
    assert main(command) == 130 and not (tmp_path / "a.json").exists()
    assert main(command) == 1
    assert len(calls) == 4  # two, the one that was interrupted, and that again
    said = capsys.readouterr().out
    assert "smp34-0 is left out" in said and "no finished run of smp34 or fcn8s-18" in said
    found = json.loads((tmp_path / "a.json").read_text())
    assert [(row["model"], row["seed"], row["stride"]) for row in found["rows"]] == [
        *(("smp18", seed, stride) for seed in (0, 1) for stride in (32, 16, 8, 4, 2, 1)),
        ("fcn32s-18", 0, 1),
    ]
    assert found["order_holds"] is False and found["trained"]["steps"] == 9
    assert cv2.imread(str(tmp_path / "a.png")) is not None
    assert main([*command, "--images", "1"]) == 1 and len(calls) == 7  # other images: other scores


def test_a_curve_is_the_full_prediction_with_fewer_pixels() -> None:
    """Written out: the middle of each window stands for all of it."""
    torch.manual_seed(0)
    images = open_dataset("streets", SIZE, 2, seed=1)
    model = create_model("smp18", 19, 2)
    mean, std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)
    checkpoint = Checkpoint(model.eval(), "smp18", 2, CITYSCAPES, mean, std, {}, "")
    found = confusions_of(checkpoint, images)
    assert list(found) == [32, 16, 8, 4, 2, 1]
    for stride, counts in found.items():
        expected = np.zeros((19, 19), np.int64)
        for frame, truth in (images[0], images[1]):
            with torch.inference_mode():
                x = normalise(torch.from_numpy(np.array(frame))[None], mean, std)
                full = model(x)[0].argmax(0).numpy()
            rows, columns = (np.arange(side) // stride * stride + stride // 2 for side in SIZE)
            np.add.at(expected, (truth[truth < 255], full[np.ix_(rows, columns)][truth < 255]), 1)
        assert np.abs(counts - expected).sum() <= 0.001 * expected.sum(), stride  # near ties


@pytest.mark.parametrize(
    ("changed", "holds", "words"),
    [
        ({}, True, "holds in the mean and in every seed (0, 1)"),
        (
            {"smp18": scored("smp18", 0.78, 0.825)},
            False,
            "does not hold: in seed 1 smp34 has 82.0 and smp18 82.5.",
        ),
        (
            {"fcn32s-18": scored("fcn32s-18", 0.9, 0.69)},
            False,
            "in the mean fcn8s-18 has 65.0 and fcn32s-18 79.5; in seed 0 fcn8s-18 has 60.0 and fcn32s-18 90.0.",
        ),
        ({"smp34": Network("smp34", {7: {1: np.ones(19)}})}, False, "smp34 and smp18 share no seed"),
        ({"smp34": scored("other", 0.9)}, False, "cannot be told: there is no finished run of smp34"),
    ],
)
def test_the_verdict(changed: Mapping[str, Network], holds: bool, words: str) -> None:
    found, said = verdict(paper(**changed))
    assert (found, words in said) == (holds, True), said


def test_tables_tell_means_and_ranges_in_the_papers_order() -> None:
    lines = table(paper()[::-1]).splitlines()
    assert lines[0] == "| IoU in % | " + " | ".join(ORDER) + " |"
    cells = [cell.strip() for cell in lines[3].split("|")[2:-1]]
    assert cells == ["81.0 (80.0 to 82.0)", "79.0 (78.0 to 80.0)", "65.0 (60.0 to 70.0)", "45.0 (40.0 to 50.0)"]
    assert len(lines) == 2 + 1 + 2 + 19 and "| pole (thin) |" in lines[5]
    smp = scored("smp18", 0.78, strides=(2, 1))
    pole = float(smp.scores[0][1][[entry.name for entry in CITYSCAPES].index("pole")])
    assert table([smp]).splitlines()[5] == f"| pole (thin) | {100 * pole:.1f} |"
    assert smp.thin()[0] == pytest.approx(pole)
    density = density_table(paper()).splitlines()
    assert density[2] == "| smp18, mean | 71.1 (70.2 to 72.0) | 79.0 (78.0 to 80.0) |" and len(density) == 4
    assert density_table(paper()[2:]) == ""


def test_each_network_is_drawn(tmp_path: Path) -> None:
    networks, ink = [], []
    for number, model in enumerate(ORDER):
        strides = (32, 16, 8, 4, 2, 1) if model.startswith("smp") else (1,)
        networks.append(scored(model, 0.5 - 0.05 * number, 0.55 - 0.05 * number, strides=strides))
        draw(tmp_path / "a.png", [*networks, scored("x", 0.9), scored("y", 0.1)])
        picture = cv2.imread(str(tmp_path / "a.png"))
        assert picture is not None
        ink.append(int(np.count_nonzero(picture.min(axis=2) < 200)))
    assert np.diff(ink).min() > 100


def test_runs_that_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(tmp_path / "none")]) == 2
    assert "holds no finished training" in capsys.readouterr().err
    write_run(tmp_path / "a", "smp18", 0)
    write_run(tmp_path / "a", "smp18", 1, width=3)
    with pytest.raises(InputError, match=r"was trained with width 3, and .* with 2"):
        finished_runs(tmp_path / "a", "last.safetensors")
    write_run(tmp_path / "b", "smp18", 0)
    (tmp_path / "b" / "smp18-0").rename(tmp_path / "b" / "again")
    write_run(tmp_path / "b", "smp18", 0)
    with pytest.raises(InputError, match="are both smp18 of seed 0"):
        finished_runs(tmp_path / "b", "last.safetensors")


def test_the_best_checkpoint_of_a_finished_run(tmp_path: Path) -> None:
    write_run(tmp_path, "fcn32s-18", 0)
    last = load_checkpoint(tmp_path / "fcn32s-18-0" / "last.safetensors")
    best = create_model("fcn32s-18", 19, 2)
    notes = {**last.notes, "step": 4}
    save_checkpoint(tmp_path / "fcn32s-18-0" / "best.safetensors", best, "fcn32s-18", CITYSCAPES, notes)
    (run,), left_out = finished_runs(tmp_path, "best.safetensors")
    assert run.checkpoint.notes["step"] == 4 and not left_out
