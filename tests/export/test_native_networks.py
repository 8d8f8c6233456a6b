"""Whole networks with natively compiled trunks, against PyTorch; with maps in one piece and part by part."""

import copy
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, check_labels, network, noise, normalised, ort
from numpy.typing import NDArray

import engines.native.section
from benchmarks.profiling.report import profile
from engines.build import build_engines
from engines.host import HostBuffer
from engines.native.engine import NativeContext, NativeEngine
from engines.native.jit import lanes_here
from engines.native.plan import write_plan
from engines.native.reading import read_trunk
from engines.native.trunk import Trunk
from engines.native.whole.engine import NetworkEngine
from engines.native.whole.network import Convolution, Network
from engines.native.whole.plan import write_network_plan
from engines.native.whole.reading import read_network
from export.graphs import AS_IT_IS, Graphs, Rewriting, contract_for, graphs_from_network
from export.package import export_package
from runtime.executor import Executor
from splitmerge.cli import main
from splitmerge.errors import EngineError
from splitmerge.labels import CITYSCAPES
from training.checkpoint import load_checkpoint, save_checkpoint
from training.networks.base import SegmentationNet
from training.streets import Streets

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "smp18-streets.safetensors"

CASES = {
    "smp18": ("smp18", (40, 70)),
    "smp18 with other windows": ("smp18,windows=2.2.2.2.3", (50, 90)),
    "smp34": ("smp34", (40, 70)),
    "smp50": ("smp50", (33, 90)),
}
QUICK = {("smp18", 1), ("smp18 with other windows", 2)}


def graphs_of(
    model: SegmentationNet, size: tuple[int, int], level: int | None = None, rewriting: Rewriting = AS_IT_IS
) -> Graphs:
    return graphs_from_network(model, contract_for(size, model.stride, MEAN, STD), level, rewriting=rewriting)


def compiled(graphs: Graphs, folder: Path) -> tuple[Trunk, NativeEngine]:
    ir.save(graphs.parts["trunk"], folder / "trunk.onnx")
    trunk = read_trunk(folder / "trunk.onnx")
    write_plan(trunk, lanes_here(), folder / "trunk.native", folder / "trunk.weights")
    return trunk, NativeEngine((folder / "trunk.native").read_bytes(), folder / "trunk.weights")


def segmented(
    graphs: Graphs, trunk: Trunk, context: NativeContext, frame: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels [H,W] and, where the trunk is one section, logits [classes,H,W] of a frame, one split batch at a time."""
    assert graphs.cut is not None and context._section is not None
    classes = next(step for step in trunk.steps if step.result == trunk.logits).weights.shape[0]
    rows, columns = graphs.cut.rows, graphs.cut.columns
    (features,) = ort(graphs.parts["stem"], {"frames": frame}).values()
    padded = trunk.height * rows, trunk.width * columns
    labels, logits = np.empty(padded, np.uint8), np.empty((classes, *padded), np.float32)
    for batch, one in enumerate(features[:, None]):
        place = (slice(batch // columns, None, rows), slice(batch % columns, None, columns))
        made = np.empty((1, trunk.height, trunk.width), np.uint8)
        context.enqueue({trunk.input: HostBuffer(one.astype(np.float32))}, {trunk.output: HostBuffer(made)})
        labels[place] = made[0]
        if trunk.logits in context._section.maps:
            pixels = context._section.maps[trunk.logits][:-2, :classes]
            logits[(slice(None), *place)] = np.moveaxis(pixels.reshape(trunk.height, trunk.width, classes), 2, 0)
    height, width = frame.shape[1:3]
    return labels[:height, :width], logits[:, :height, :width]


def exact(model: SegmentationNet, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    with torch.no_grad():
        logits: NDArray[np.float64] = copy.deepcopy(model).double()(normalised(frame).double())[0].numpy()
    return logits


@pytest.mark.parametrize(
    ("case", "level"),
    [
        pytest.param(case, level, marks=() if (case, level) in QUICK else pytest.mark.slow)
        for case in CASES
        for level in (1, 2)
    ],
)
def test_labels_and_logits_are_pytorchs(case: str, level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split batches one after the other; the labels once more with every split's batches one after the other."""
    name, size = CASES[case]
    model, frame = network(name), noise(1, *size)
    graphs = graphs_of(model, size, level)
    trunk, engine = compiled(graphs, tmp_path)
    labels, logits = segmented(graphs, trunk, engine.create_context(), frame)
    expected = exact(model, frame)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-5 * np.abs(expected).max())
    check_labels(labels[None], logits[None])

    monkeypatch.setattr(engines.native.section, "MAP_BYTES", 1)
    parted = engine.create_context()
    assert parted._section is not None and parted._section._inner is not None
    np.testing.assert_array_equal(segmented(graphs, trunk, parted, frame)[0], labels)


@pytest.mark.slow
def test_what_the_shipped_network_loses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-s` shows how far its logits are from float64's, of the largest."""
    model = load_checkpoint(CHECKPOINT).model
    image, _ = Streets("val", (256, 512), 1, seed=1)[0]
    graphs = graphs_of(model, (256, 512))
    trunk, engine = compiled(graphs, tmp_path)
    labels, logits = segmented(graphs, trunk, engine.create_context(), image[None])
    expected = exact(model, image[None])
    lost = np.abs(logits - expected).max() / np.abs(expected).max()
    with capsys.disabled():
        print(f" off by {lost:.1e} of the largest; {(labels != expected.argmax(0)).sum()} labels differ", end="")
    assert lost < 1e-5
    check_labels(labels[None], expected[None].astype(np.float32))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("fcn8s-18", (64, 96), marks=pytest.mark.slow),
        ("deeplabv3-50", (64, 96)),
        pytest.param("ldn121-16-2", (50, 70), marks=pytest.mark.slow),
        *(
            pytest.param(name, (96, 160), marks=pytest.mark.slow)
            for name in ("fcn32s-50", "dilatedfcn8-34", "deeplabv3-block6-50", "aspp-50", "pspnet-50", "ldn161-64-4",
                         "lddn121-8-4", "lrn18-32-4")
        ),
    ],
)  # fmt: skip
def test_whole_networks_have_pytorchs_labels(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Of every pixel, but for near ties, and in vectors of any length that this processor has."""
    model = network(name)
    graphs = graphs_from_network(model, contract_for(size, model.stride, MEAN, STD), None)
    ir.save(graphs.parts["model"], tmp_path / "model.onnx")
    read, frames = read_network(tmp_path / "model.onnx"), noise(2, *size)
    with torch.no_grad():
        logits = copy.deepcopy(model).double()(normalised(frames).double()).numpy()
    found = []
    for lanes in {8, lanes_here()}:
        write_network_plan(read, lanes, tmp_path / "model.native", tmp_path / "model.weights")
        engine = NetworkEngine((tmp_path / "model.native").read_bytes(), tmp_path / "model.weights", 2)
        labels = np.empty(frames.shape[:3], np.uint8)
        context = engine.create_context()
        context.enqueue({"frames": HostBuffer(frames)}, {"labels": HostBuffer(labels)})
        check_labels(labels, logits.astype(np.float32))
        found.append(labels)
    assert len(np.unique(found[0])) > 1
    assert all((labels == found[0]).mean() > 0.999 for labels in found)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smp18", r"split_1.windows \(Reshape\) is none that is compiled natively"),
        ("fastfcn-psp-50", "is not of height and width and of all channels"),
    ],
)
def test_whole_networks_that_are_not_compiled_natively(name: str, said: str, tmp_path: Path) -> None:
    """With splits in them, and with convolutions of groups of channels."""
    model = network(name)
    graphs = graphs_from_network(model, contract_for((64, 96), model.stride, MEAN, STD), 0)
    ir.save(graphs.parts["model"], tmp_path / "model.onnx")
    with pytest.raises(EngineError, match=said):
        read_network(tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_network_that_is_not_compiled_natively(tmp_path: Path) -> None:
    """Dense units put maps side by side."""
    with pytest.raises(EngineError, match="is none that is compiled natively"):
        compiled(graphs_of(network("smp-dn121"), (40, 90)), tmp_path)


def test_a_package_of_a_whole_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Built, listed, run with several frames at a time, profiled; what was built elsewhere, or altered, is refused."""
    checkpoint = tmp_path / "random.safetensors"
    save_checkpoint(checkpoint, network("fcn8s-18", 8), "fcn8s-18", CITYSCAPES[:7])
    package = export_package(checkpoint, (50, 90), tmp_path / "package")
    build_engines(package)
    frames = noise(4, 50, 90)
    with Executor(package) as executor:
        expected = [executor.segment(frame) for frame in frames]
    assert main(["build", "--package", str(package.folder), "--backend", "onnxruntime", "--form", "native"]) == 0
    said = capsys.readouterr().out
    assert "model.native" in said and "labels of noise differ from ONNX Runtime's" in said and " threads (" in said
    engines = package.engines_folder / "onnxruntime-fp32"
    assert not (engines / "model.onnx").exists()
    assert main(["inspect", str(package.folder)]) == 0
    assert capsys.readouterr().out.count(": valid") == 1
    with Executor(package, in_flight=3) as executor, ThreadPoolExecutor(3) as pool:
        for labels, wanted in zip(pool.map(executor.segment, frames), expected, strict=True):
            assert (labels == wanted).mean() > 0.999
    found = profile(package, "fp32", 1, 1)
    assert found.stages["model"] > sum(op.ms for op in found.operators) * 0.5 > 0
    kinds = [op.kind for op in found.operators]
    assert kinds[0] == "frames" and kinds[-1] == "labels" and {"7x7", "1x1", "largest", "resample"} <= set(kinds)
    stem = found.operators[1]
    inside = [
        sum(0 <= 2 * at - 3 + tap < length for at in range(length // 2) for tap in range(7)) for length in (64, 96)
    ]
    assert stem.operations == 2 * inside[0] * inside[1] * 3 * -(-8 // lanes_here()) * lanes_here()
    sidecar = json.loads((engines / "model.json").read_text())
    (engines / "model.json").write_text(json.dumps({**sidecar, "machine": {**sidecar["machine"], "native": 0}}))
    with pytest.raises(EngineError, match="another version of the native form"):
        Executor(package)
    (engines / "model.json").write_text(json.dumps(sidecar))
    weights = engines / "model.weights"
    weights.write_bytes(weights.read_bytes()[:-4] + b"1234")
    with pytest.raises(EngineError, match="build it again"):
        Executor(package)


def test_other_labels_than_onnx_runtimes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And frames that are too large to be held against it are built, and said to be."""
    checkpoint = tmp_path / "random.safetensors"
    save_checkpoint(checkpoint, network("fcn32s-18", 8), "fcn32s-18", CITYSCAPES[:7])
    package = export_package(checkpoint, (64, 96), tmp_path / "package")
    right = read_network

    def wrong(path: Path) -> Network:
        read = right(path)
        first, *more = read.steps
        assert isinstance(first, Convolution)
        return dataclasses.replace(read, steps=(dataclasses.replace(first, weights=-first.weights), *more))

    monkeypatch.setattr("engines.native.whole.reading.read_network", wrong)
    with pytest.raises(EngineError, match=r"gives \d+ of 6144 pixels other labels than ONNX Runtime"):
        build_engines(package, form="native")
    monkeypatch.setattr("engines.native.building.CHECKED_BYTES", 1000)
    (built,) = build_engines(package, form="native")
    assert built.build["checked"].startswith("not checked: frames of 64x96 are too large")
