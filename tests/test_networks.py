"""Every network does what all networks do: it learns, takes any size, is saved, exported, built, run and compared.

One of each family in the normal suite, all of them in the slow one.
"""

import json
from pathlib import Path

import cv2
import pytest
import torch

from engines.build import build_engines
from engines.compiler import GpuOptions
from runtime.reference import Reference
from splitmerge.cli import main
from splitmerge.labels import CITYSCAPES
from splitmerge.package import Package
from training.checkpoint import load_checkpoint, save_checkpoint
from training.models import create_model, list_models
from training.networks.base import SegmentationNet
from training.networks.smp import SMP
from training.reduction import strides_of

FAMILIES = {"smp18", "fcn8s-18", "dilatedfcn8-18", "deeplabv3-50", "fastfcn-encnet-50", "fastfcn-psp-50", "lrn18-32-4"}
FAMILIES |= {"ldn121-32-4"}
OTHERS = {
    "smp18,windows=2.3.2.1.1",
    "deeplabv3-50,output_stride=8",
    "deeplabv3-50,output_stride=32",
    "deeplabv3-block7-50,multi_grid=1.2.4",
}
OTHERS |= {"ldn121-64-4,spp=psp,separable=yes", "ldn121-32-4,spp=none", "ldn121-32-4,lean=yes,auxiliary=no"}
CLASSES, WIDTH = CITYSCAPES, 2
SIZE, LARGE = (46, 70), (134, 140)  # which no stride divides; for strides above 32

slow = pytest.mark.slow
NAMES = [pytest.param(name, marks=() if name in FAMILIES else slow) for name in (*list_models(), *sorted(OTHERS))]


def network(name: str) -> SegmentationNet:
    torch.manual_seed(5)
    return create_model(name, len(CLASSES), WIDTH)


@pytest.fixture(scope="class")
def package(name: str, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Exported, which verifies it against PyTorch, with running statistics that three batches have moved."""
    folder = tmp_path_factory.mktemp("network")
    model = network(name).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, 3, 64, 64))
    save_checkpoint(folder / "a.safetensors", model, name, CLASSES)
    height, width = SIZE if model.stride <= 32 else LARGE
    arguments = ["--checkpoint", str(folder / "a.safetensors"), "--size", f"{height}x{width}"]
    assert main(["export", *arguments, "--package", str(folder / "p")]) == 0
    return Package.open(folder / "p")


@pytest.mark.parametrize("name", NAMES, scope="class")
class TestNetwork:
    def test_one_training_step_lowers_the_loss(self, name: str) -> None:
        model = network(name).train()
        side = model.stride * -(-64 // model.stride)
        labels = torch.zeros(4, side, side, dtype=torch.int64)
        labels[:, 20:40], labels[1, :, 30:], labels[0, 50:] = 3, 5, 255
        images = torch.randn(4, 3, side, side) + labels[:, None]
        # A large step: in a network of width 2 whose batch norms see four numbers, a small one is lost among the kinks.
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(2):
            if isinstance(model, SMP):  # the same pixels both times
                model.generator = torch.Generator().manual_seed(3)
                model.training_stride = strides_of(model.windows)[3]
            loss = model.loss(images, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[1] < losses[0] < 10

    def test_every_size_has_a_logit_for_every_pixel(self, name: str) -> None:
        model = network(name).eval()
        with torch.no_grad():
            for height, width in (SIZE, (97, 64), (33, 34)):
                logits = model(torch.randn(1, 3, height, width))
                assert logits.shape == (1, len(CLASSES), height, width)
                assert torch.isfinite(logits).all() and logits.std() > 0

    def test_a_checkpoint_gives_the_same_network(self, name: str, tmp_path: Path) -> None:
        model, x = network(name), torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            model.train()(x)  # moves the running statistics
            save_checkpoint(tmp_path / "a.safetensors", model, name, CLASSES)
            loaded = load_checkpoint(tmp_path / "a.safetensors")
            assert loaded.name == name
            assert torch.equal(loaded.model(x), model.eval()(x))

    def test_it_is_exported_built_run_and_compared(self, package: Package, tmp_path: Path) -> None:
        folder, clip = str(package.folder), str(tmp_path / "drive.mp4")
        assert main(["build", "--package", folder, "--backend", "onnxruntime"]) == 0
        size = "x".join(map(str, package.manifest.input.size))
        assert main(["data", "render", "drive", "--frames", "2", "--size", size, "--out", clip]) == 0
        assert main(["run", clip, "--package", folder, "--masks", str(tmp_path / "masks")]) == 0
        _, frame = cv2.VideoCapture(clip).read()
        found = cv2.imread(str(tmp_path / "masks" / "000000.png"), cv2.IMREAD_UNCHANGED)
        assert (Reference(package).segment(frame) == found).mean() > 0.999
        compare = ["compare", "--package", folder, "--data", "drive:7", "--images", "2"]
        assert main([*compare, "--json", str(tmp_path / "c.json")]) == 0
        assert json.loads((tmp_path / "c.json").read_text())["pixel_agreement"] > 0.999

    def test_tensorrt_rtx_builds_it(self, package: Package) -> None:
        pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
        (engine,) = build_engines(package, "tensorrt-rtx", "fp32", GpuOptions("8.9"), ["model"])
        assert engine.size > 0
