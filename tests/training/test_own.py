"""A user's own network goes the whole way; one that breaks the rules is told which."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from splitmerge.cli import main
from splitmerge.errors import CheckpointError, InputError
from splitmerge.labels import CITYSCAPES
from training.checkpoint import load_checkpoint, save_checkpoint
from training.own import model_named_by_user

OWN = '''
import torch
from torch import nn
import torch.nn.functional as F
from training.layers import split_pool, merge_pool

class Net(nn.Module):
    """Two convolutions on a split image."""
    stride = 2
    def __init__(self, classes, width=8):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.last = nn.Conv2d(width, classes, 1)
    def forward(self, x):
        return merge_pool(self.last(self.network(split_pool(x))))

class Half(Net):
    def forward(self, x): return super().forward(x)[..., ::2]
class Pair(Net):
    def forward(self, x): return super().forward(x), x
class Drops(Net):
    def forward(self, x): return F.dropout(super().forward(x))
class Mixes(Net):
    def forward(self, x): return super().forward(x) - x.mean()
class Counts(Net):
    def forward(self, x):
        self.network[1].running_mean += 1
        return super().forward(x)
class Double(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.double()
class Fails(Net):
    def forward(self, x): raise ValueError("on purpose")
class Learns(Net):
    def loss(self, images, labels): return self(images).square().mean()

def build(num_classes, width=8): return Net(num_classes, width)
def half(num_classes): return Half(num_classes)
def pair(num_classes): return Pair(num_classes)
def drops(num_classes): return Drops(num_classes)
def mixes(num_classes): return Mixes(num_classes)
def counts(num_classes): return Counts(num_classes)
def double(num_classes): return Double(num_classes)
def fails(num_classes): return Fails(num_classes)
def learns(num_classes): return Learns(num_classes)
def text(num_classes): return "a network"
def other(classes): return Net(classes)
def odd(num_classes):
    net = Net(num_classes)
    net.stride = 0
    return net
number = 3
'''


@pytest.fixture(autouse=True)
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in the folder that the command is called in."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mine", "mine.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_from_training_to_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--model", "mine.nets:build"]
    small = ["--images", "2", "--validation-images", "1", "--size", "64x96", "--crop", "64x64", "--batch", "2"]
    assert main(["train", *own, *small, "--width", "4", "--steps", "2", "--out", "run"]) == 0
    assert load_file("run/best.safetensors").keys() == {
        "last.weight", "last.bias", "network.0.weight", "network.0.bias", "network.1.weight", "network.1.bias",
        "network.1.running_mean", "network.1.running_var", "network.1.num_batches_tracked",
    }  # fmt: skip
    export = ["export", "--checkpoint", "run/best.safetensors", "--size", "45x70", "--package", "package"]
    assert main([*export, *own, "--cut", "1"]) == 0
    data = ["--data", "drive:1", "--images", "1"]
    budget = [*(f"--max-{kind}-drop=100" for kind in ("iou", "thin", "boundary")), "--min-agreement=1"]
    int8 = ["--precision", "int8", "--method", "minmax", "--score-images", "1"]
    assert main(["calibrate", "--package", "package", *data, *int8, *budget]) == 0
    for precision in ("fp32", "int8"):
        assert main(["build", "--package", "package", "--backend", "onnxruntime", "--precision", precision]) == 0
    cv2.imwrite("frame.png", np.random.default_rng(1).integers(0, 256, (45, 70, 3), np.uint8))
    assert main(["run", "frame.png", "--package", "package", "--precision", "int8", "--masks", "masks"]) == 0
    assert [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape for path in Path("masks").iterdir()] == [(45, 70)]
    compare = ["compare", "--package", "package", "--images", "1", "--json", "c.json"]
    assert main([*compare, *own]) == 0
    assert json.loads(Path("c.json").read_text())["pixel_agreement"] > 0.999
    capsys.readouterr()
    for command in (export, compare):  # the file's word is not enough
        assert main(command) == 2
        assert "add --model mine.nets:build if you trust that code" in capsys.readouterr().err


def test_nothing_is_imported_because_a_file_names_it(tmp_path: Path) -> None:
    model = model_named_by_user("mine.nets:build", 19, 4)
    save_checkpoint(tmp_path / "a.safetensors", model, "mine.trap:build", CITYSCAPES)
    (tmp_path / "mine" / "trap.py").write_text("raise SystemExit('ran')")
    with pytest.raises(CheckpointError, match="no code runs because a file names it"):
        load_checkpoint(tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors", "mine.nets:build").model  # the user's word, not the file's
    x = torch.randn(1, 3, 9, 13)
    with torch.no_grad():
        assert torch.equal(loaded(x), model.eval()(x))


def test_a_listed_networks_checkpoint_takes_no_code(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "training/checkpoints/smp18-streets.safetensors"
    shutil.copyfile(shipped, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"holds smp18, not mine\.nets:build: leave --model out"):
        load_checkpoint(tmp_path / "a.safetensors", "mine.nets:build")


def test_a_loss_of_its_own_is_used() -> None:
    model, images = model_named_by_user("mine.nets:learns", 5, 4), torch.randn(1, 3, 8, 8)
    expected = model(images).square().mean()
    assert np.isclose(model.loss(images, torch.zeros(1, 8, 8)).item(), expected.item())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half", "gives float32 2x5x64x48 for images of 2x3x64x96 where float32 2x5x64x96 was expected"),
        ("pair", "gives a tuple"),
        ("drops", "another result each time"),
        ("mixes", "lets one image of a batch change another's"),
        ("counts", r"changes network\.1\.running_mean in evaluation"),
        ("double", "in float64 where float32 was expected"),
        ("fails", r"cannot compute images of 2x3x64x96 \(ValueError: on purpose\)"),
        ("text", "gives a str where a torch.nn.Module"),
        ("other", "made no network of 5 classes"),
        ("odd", "Net.stride is 0"),
        ("number", "is no function"),
        ("nothing", "cannot be imported"),
    ],
)
def test_what_breaks_a_rule_is_told_which(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        model_named_by_user(f"mine.nets:{name}", 5, 4)


def test_code_that_cannot_be_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", "mine.gone:build", "--out", "run"]) == 2
    assert "No module named 'mine.gone'" in capsys.readouterr().err
    assert not Path("run").exists()
