"""Recipes: schedules as PyTorch's own, rates, batch norm, crops, hard images, and weights to begin with."""

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_pictures import toy_set

from splitmerge.errors import CheckpointError, InputError
from splitmerge.labels import CITYSCAPES, IGNORE
from training.evaluate import normalise
from training.learning import norms
from training.learning.augment import crops_of_step, with_hard_images
from training.learning.loader import batches
from training.learning.optimiser import optimiser_of, rate_factor
from training.learning.pretrained import load_pretrained
from training.learning.recipes import RECIPES, Recipe
from training.loop import TrainConfig, train
from training.models import create_model
from training.networks.densenet import DenseUnit

IMAGES, VALIDATION = toy_set(5, 1), toy_set(2, 2)
MODELS = {
    "streets": "smp18",
    "smp": "smp18",
    "deeplabv3": "deeplabv3-50",
    "deeplabv3-stage2": "deeplabv3-50,output_stride=8",
    "fastfcn": "fastfcn-psp-50",
    "ldn": "ldn121-64-4",
}


def config_of(recipe: Recipe, **changes: object) -> TrainConfig:
    config = TrainConfig(
        width=2, crop=(64, 96), batch=4, steps=4, validate_every=2, stride=recipe.stride, lr=recipe.lr or 2e-3,
        weight_decay=recipe.weight_decay or 1e-4, recipe=recipe, model=MODELS[recipe.name],
    )  # fmt: skip
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_trains_its_network(tmp_path: Path, name: str) -> None:
    train(config_of(RECIPES[name]), IMAGES, VALIDATION, tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(np.isfinite(float(row["loss"])) for row in rows)


@pytest.mark.parametrize(
    ("recipe", "steps", "oracle"),
    [
        ("deeplabv3", 50, lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 50, power=0.9)),
        ("fastfcn", 50, lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 50, power=0.9)),
        ("smp", 50, lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0)),
        ("ldn", 50, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50)),
    ],
)
def test_schedules_are_pytorchs(recipe: str, steps: int, oracle) -> None:
    config = config_of(replace(RECIPES[recipe], by_epoch=False), steps=steps)
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = oracle(optimiser)
    for step in range(steps):
        assert rate_factor(config, step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimiser.step()
        scheduler.step()


def test_ladders_change_their_rate_after_whole_epochs() -> None:
    config = config_of(RECIPES["ldn"], steps=30)
    factors = [rate_factor(config, step, epoch=10) for step in range(30)]
    assert [len(set(factors[first : first + 10])) for first in (0, 10, 20)] == [1, 1, 1]
    assert factors[0] == 1 and factors[10] == pytest.approx(0.75) and factors[20] == pytest.approx(0.25)


def test_the_papers_optimisers() -> None:
    model = create_model("smp18", 5, 2)
    assert optimiser_of(config_of(RECIPES["ldn"]), model).defaults["amsgrad"] is True
    smp = optimiser_of(config_of(RECIPES["smp"]), model)
    assert type(smp) is torch.optim.Adam and not smp.defaults["amsgrad"] and smp.defaults["lr"] == 1e-5
    assert smp.param_groups[0]["weight_decay"] == 5e-4
    sgd = optimiser_of(config_of(RECIPES["fastfcn"]), model)
    assert (sgd.defaults["momentum"], sgd.defaults["lr"], sgd.param_groups[0]["weight_decay"]) == (0.9, 0.001, 1e-4)


def test_pretrained_weights_learn_at_a_quarter_of_the_rate(tmp_path: Path) -> None:
    begun = create_model("lrn18-32-4", 19, 2)
    torch.save(
        {key: value for key, value in begun.state_dict().items() if not key.startswith("head")}, tmp_path / "r.pth"
    )
    config = config_of(RECIPES["ldn"], model="lrn18-32-4", pretrained=str(tmp_path / "r.pth"), steps=1)
    train(config, IMAGES, VALIDATION, tmp_path / "run")
    groups = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["optimiser"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([4e-4, 4e-4, 1e-4, 1e-4])
    sizes = [len(group["params"]) for group in groups]
    backbone = [name for name, _ in begun.named_parameters() if not name.startswith("head")]
    assert sum(sizes[2:]) == len(backbone) and sum(sizes) == len(list(begun.parameters()))
    (tmp_path / "r.pth").unlink()
    train(config, IMAGES, VALIDATION, tmp_path / "run")  # what goes on needs the file no more


def test_the_second_stage_leaves_batch_norm_alone(tmp_path: Path) -> None:
    first, second = RECIPES["deeplabv3"], RECIPES["deeplabv3-stage2"]
    train(config_of(first), IMAGES, VALIDATION, tmp_path / "one")
    start = tmp_path / "one" / "last.safetensors"
    train(config_of(second, pretrained=str(start)), IMAGES, VALIDATION, tmp_path / "two")
    before, after = load_file(start), load_file(tmp_path / "two" / "last.safetensors")
    of_norms = {
        f"{name}.{key}"
        for name, module in create_model("deeplabv3-50", 19, 2).named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for key in module.state_dict()
    }
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and not changed & of_norms
    one = torch.load(tmp_path / "one" / "resume.pt", weights_only=True)["model"]
    assert float(one["bn1.running_mean"].abs().max()) < 0.01  # 4 steps of a share of 0.0003 each


def test_statistics_computed_again_are_plain_averages() -> None:
    model = create_model("smp18", 5, 2)
    images = normalise(torch.from_numpy(np.stack([image for image, _ in IMAGES])))
    outputs = [model.conv1(images[index : index + 1]) for index in range(5)]
    means = torch.stack([torch.nn.functional.avg_pool2d(out, out.shape[-2:]).flatten() for out in outputs])
    stem = torch.nn.Sequential(model.conv1, model.bn1)
    norms.recompute(stem, 5, lambda index: stem(images[index : index + 1]))
    torch.testing.assert_close(model.bn1.running_mean, means.mean(0), atol=1e-5, rtol=1e-5)
    assert model.bn1.momentum == 0.1


def test_compared_networks_see_the_same_crops() -> None:
    recipe = replace(RECIPES["ldn"], colour=0.2)
    ladder, fast = (
        config_of(recipe, seed=3, augment_seed=7),
        config_of(recipe, model="fcn8s-18", seed=4, augment_seed=7),
    )
    for step in (0, 5):
        one, other = crops_of_step(ladder, IMAGES, step), crops_of_step(fast, IMAGES, step)
        np.testing.assert_array_equal(one.images_bgr, other.images_bgr)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert not np.array_equal(crops_of_step(ladder, IMAGES, 0).labels, crops_of_step(ladder, IMAGES, 1).labels)


@pytest.mark.parametrize("name", ["streets", "ldn"])
def test_parts_make_up_the_batch(name: str) -> None:
    config = config_of(RECIPES[name])
    whole = crops_of_step(config, IMAGES, 3)
    halves = [crops_of_step(config, IMAGES, 3, part) for part in (slice(0, 2), slice(2, 4))]
    np.testing.assert_array_equal(np.concatenate([half.images_bgr for half in halves]), whole.images_bgr)
    assert halves[0].indices + halves[1].indices == whole.indices


def test_rescaled_crops_keep_image_and_labels_together() -> None:
    """The class of a toy picture is its strongest colour; what lies outside is the mean pixel, ignored."""
    config = config_of(RECIPES["ldn"], crop=(96, 160), batch=8)
    inside = outside = 0
    for step in range(6):
        crops = crops_of_step(config, IMAGES, step)
        ignored = crops.labels == IGNORE
        strongest = crops.images_bgr.argmax(-1)
        agree = (strongest == crops.labels)[~ignored].mean()
        assert agree > 0.93, agree  # but for smoothed edges
        assert (np.abs(crops.images_bgr[ignored].astype(int) - (104, 116, 124)).max(-1) <= 80).mean() > 0.95
        inside, outside = inside + (~ignored).sum(), outside + ignored.sum()
    assert outside and inside
    sizes = {int((label == IGNORE).sum()) for step in range(6) for label in crops_of_step(config, IMAGES, step).labels}
    assert len(sizes) > 10  # of many scales


def test_colours_change_and_labels_do_not() -> None:
    plain = config_of(replace(RECIPES["fastfcn"], scale=None))
    coloured = config_of(replace(RECIPES["fastfcn"], scale=None, colour=0.4))
    before, after = crops_of_step(plain, IMAGES, 0), crops_of_step(coloured, IMAGES, 0)
    assert not np.array_equal(before.images_bgr, after.images_bgr)
    assert after.images_bgr.dtype == np.uint8
    assert {tuple(np.unique(labels)) for labels in after.labels} <= {
        (0, 1, 2),
        (0, 1),
        (1, 2),
        (0, 2),
        (0,),
        (1,),
        (2,),
    }


def test_images_with_hard_classes_count_twice() -> None:
    images = [(image, np.full_like(labels, index)) for index, (image, labels) in enumerate(IMAGES)]
    more = with_hard_images(images, CITYSCAPES, ("building", "fence"))  # 2 and 4
    assert [int(more[index][1][0, 0]) for index in range(len(more))] == [0, 1, 2, 3, 4, 2, 4]
    with pytest.raises(InputError, match="no class 'chair'"):
        with_hard_images(images, CITYSCAPES, ("chair",))


def test_workers_bring_the_same_crops_and_the_same_words() -> None:
    # Wakes OpenCV's threads, which a forked worker does not have and would wait for.
    cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1500, 1500), interpolation=cv2.INTER_AREA)
    config = config_of(RECIPES["ldn"], steps=5)
    alone = list(batches(config, IMAGES, 2, slice(None)))
    helped = list(batches(replace(config, workers=2), IMAGES, 2, slice(None)))
    assert len(alone) == len(helped) == 3
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.images_bgr, other.images_bgr) and one.indices == other.indices
    small = [*IMAGES, *toy_set(1, 3, (32, 64))] * 3
    streets = config_of(RECIPES["streets"], workers=1, steps=40)
    with pytest.raises(InputError, match=r"^Image \d+ of streets is 32x64 and the crop is 64x96"):
        list(batches(streets, small, 0, slice(None)))


def test_torchvisions_files_fill_the_backbone(tmp_path: Path) -> None:
    """As they are published: DenseNet's old names, and no counts of batches."""
    source, target = create_model("ldn121-64-4", 5, 2), create_model("ldn121-64-4", 5, 2)
    old = {}
    for key, value in source.state_dict().items():
        if key.startswith("features.") and not key.endswith("num_batches_tracked"):
            for name in ("norm", "conv"):
                key = key.replace(f".{name}1.", f".{name}.1.").replace(f".{name}2.", f".{name}.2.")
            old[key] = value
    assert any(".norm.1." in key for key in old)
    unit = next(module for module in target.modules() if isinstance(module, DenseUnit))
    before = unit.conv1.weight.clone()
    torch.save(
        {**old, "classifier.weight": torch.zeros(1000, 1), "features.norm5.weight": torch.zeros(1)}, tmp_path / "d.pth"
    )
    load_pretrained(target, tmp_path / "d.pth", "ldn121-64-4")
    assert not torch.equal(unit.conv1.weight, before)
    for key, value in target.features.state_dict().items():
        assert torch.equal(value, source.features.state_dict()[key]), key


def test_weights_that_cannot_be_begun_with(tmp_path: Path) -> None:
    model = create_model("smp18", 5, 2)
    with pytest.raises(InputError, match=r"no file .*r\.pth of pretrained weights, and none is fetched"):
        load_pretrained(model, tmp_path / "r.pth", "smp18")
    (tmp_path / "r.pth").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="cannot be read as a state dict"):
        load_pretrained(model, tmp_path / "r.pth", "smp18")
    torch.save({"model": 1}, tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_pretrained(model, tmp_path / "r.pth", "smp18")
    torch.save(create_model("smp34", 5, 2).state_dict(), tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match=r"r\.pth: The backbone's state dict does not fit"):
        load_pretrained(model, tmp_path / "r.pth", "smp18")
    state = model.state_dict()
    state["conv1.weight"] = state["conv1.weight"] * float("nan")
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(CheckpointError, match="NaN or infinite values in conv1"):
        load_pretrained(model, tmp_path / "r.pth", "smp18")


def test_a_training_from_before_recipes_goes_on(tmp_path: Path) -> None:
    config = TrainConfig(width=2, crop=(64, 64), batch=2, steps=4, validate_every=2)
    train(config, IMAGES, VALIDATION, tmp_path)
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    new = ("recipe", "augment_seed", "pretrained", "accumulate", "precision", "workers", "tensorboard", "device")
    saved["config"] = {key: value for key, value in saved["config"].items() if key not in new}
    for key in ("loss_sum", "since", "first_loss", "scaler"):
        del saved[key]
    torch.save(saved, tmp_path / "resume.pt")
    train(config, IMAGES, VALIDATION, tmp_path)
    with pytest.raises(InputError, match="holds a training with recipe streets, not ldn"):
        train(replace(config, recipe=RECIPES["ldn"]), IMAGES, VALIDATION, tmp_path)
