"""Several processes, parts and lower precision: what is the same as one process in float32, and how nearly."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_pictures import toy_set

from splitmerge.errors import InputError
from splitmerge.labels import IGNORE
from training.learning.recipes import RECIPES
from training.loop import TrainConfig, train

VALIDATION = toy_set(3, 2)
# Plain gradient descent: Adam's first steps follow the sign of a gradient, and would make much of rounding.
SGD = replace(RECIPES["fastfcn"], scale=None)
FROZEN = replace(SGD, frozen_norms=True)
LEARNT = TrainConfig(
    model="smp18", width=4, crop=(64, 64), batch=4, steps=2, validate_every=1, lr=1e-3, recipe=SGD, device="cpu"
)
CASES = {
    "smp": LEARNT,
    "fcn8s": replace(LEARNT, model="fcn8s-18"),
    "checkpointing": replace(LEARNT, checkpointing="full"),
    "parts": replace(LEARNT, model="fcn8s-18", recipe=FROZEN, accumulate=2),
}


def images() -> list[tuple[np.ndarray, np.ndarray]]:
    """Unequal shares of pixels are ignored, so that a mean of means is not the mean."""
    pairs = toy_set(5, 1)
    for index, (_, labels) in enumerate(pairs):
        labels[: 16 * index] = IGNORE
    return pairs


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes of torchrun make of each case."""
    out = tmp_path_factory.mktemp("two")
    script = out / "train.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport torch\nimport test_scale as here\ntorch.set_num_threads(1)\n"
        "torch.distributed.init_process_group('gloo')\n"
        "for name, config in here.CASES.items():\n"
        "    here.train(config, here.images_of(name), here.VALIDATION, Path(sys.argv[1]) / name)\n"
    )
    path = os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, out]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[:6000]
    return out


def images_of(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split-Merge Pooling learns from a drawn grid of pixels: its means are over all of them where all are labelled."""
    return toy_set(5, 1) if CASES[name].model.startswith("smp") else images()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_their_crops_together(tmp_path: Path, two: Path, name: str) -> None:
    train(replace(CASES[name], accumulate=1), images_of(name), VALIDATION, tmp_path)
    alone, together = (load_file(folder / "last.safetensors") for folder in (tmp_path, two / name))
    assert alone.keys() == together.keys()
    begun = torch.load(two / name / "resume.pt", weights_only=True)
    assert begun["step"] == 2
    for key, value in alone.items():
        torch.testing.assert_close(
            together[key], value, atol=2e-5, rtol=2e-4, msg=lambda text, key=key: f"{key}: {text}"
        )
    rows = [torch.load(folder / "resume.pt", weights_only=True)["rows"] for folder in (tmp_path, two / name)]
    for one, other in zip(*rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-4)
        assert one["miou"] == pytest.approx(other["miou"], abs=2e-3)


def test_parts_are_the_whole_where_batch_norm_is_frozen(tmp_path: Path) -> None:
    whole = replace(CASES["parts"], accumulate=1)
    train(whole, images(), VALIDATION, tmp_path / "whole")
    train(replace(whole, accumulate=4), images(), VALIDATION, tmp_path / "parts")
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_nearly_the_same(tmp_path: Path, precision: str) -> None:
    config = replace(LEARNT, model="fcn8s-18")
    train(config, toy_set(5, 1), VALIDATION, tmp_path / "fp32")
    train(replace(config, precision=precision), toy_set(5, 1), VALIDATION, tmp_path / precision)
    weights = load_file(tmp_path / precision / "last.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
    rows = [torch.load(tmp_path / name / "resume.pt", weights_only=True)["rows"] for name in ("fp32", precision)]
    losses = [[row["loss"] for row in found] for found in rows]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_what_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not divide into 3 parts"):
        replace(LEARNT, accumulate=3)
    with pytest.raises(InputError, match="no precision 'int8'"):
        replace(LEARNT, precision="int8")
    with pytest.raises(InputError, match="no device 'tpu'"):
        train(replace(LEARNT, device="tpu"), images(), VALIDATION, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="4 does not divide among 3 processes"):
        train(LEARNT, images(), VALIDATION, tmp_path)
