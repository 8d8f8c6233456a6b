"""Whole networks with natively compiled trunks, against PyTorch; with maps in one piece and part by part."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from export_samples import MEAN, STD, check_labels, network, noise, normalised, ort

import engines.native.section
from engines.host import HostBuffer
from engines.native.engine import NativeContext, NativeEngine
from engines.native.jit import lanes_here
from engines.native.plan import write_plan
from engines.native.trunk import Trunk, read_trunk
from export.graphs import AS_IT_IS, Graphs, Rewriting, contract_for, graphs_from_network
from splitmerge.errors import EngineError

CASES = {
    "smp18": ("smp18", (40, 70), AS_IT_IS),
    "smp18 with other windows": ("smp18,windows=2.2.2.2.3", (50, 90), AS_IT_IS),
    "smp34": ("smp34", (40, 70), AS_IT_IS),
    "smp50": ("smp50", (33, 90), AS_IT_IS),
}
QUICK = {("smp18", 1), ("smp18 with other windows", 2), ("smp50", 2)}


def graphs_of(name: str, size: tuple[int, int], rewriting: Rewriting, level: int | None = None) -> Graphs:
    model = network(name)
    return graphs_from_network(model, contract_for(size, model.stride, MEAN, STD), level, rewriting=rewriting)


def compiled(graphs: Graphs, folder: Path) -> tuple[Trunk, NativeEngine]:
    ir.save(graphs.parts["trunk"], folder / "trunk.onnx")
    trunk = read_trunk(folder / "trunk.onnx")
    write_plan(trunk, lanes_here(), folder / "trunk.native", folder / "trunk.weights")
    return trunk, NativeEngine((folder / "trunk.native").read_bytes(), folder / "trunk.weights")


def logits_of(context: NativeContext, trunk: Trunk) -> np.ndarray:
    assert context._section is not None
    pixels = context._section.maps[trunk.logits][:-2, :7]
    return np.moveaxis(pixels.reshape(trunk.height, trunk.width, 7), 2, 0)


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
    name, size, rewriting = CASES[case]
    graphs = graphs_of(name, size, rewriting, level)
    trunk, engine = compiled(graphs, tmp_path)
    assert graphs.cut is not None
    context = engine.create_context()
    monkeypatch.setattr(engines.native.section, "MAP_BYTES", 1)
    parted = engine.create_context()
    assert parted._section is not None and parted._section._inner is not None

    frame, (rows, columns) = noise(1, *size), (graphs.cut.rows, graphs.cut.columns)
    (features,) = ort(graphs.parts["stem"], {"frames": frame}).values()
    padded = trunk.height * rows, trunk.width * columns
    labels, again, logits = np.empty(padded, np.uint8), np.empty(padded, np.uint8), np.empty((7, *padded), np.float32)
    for batch, one in enumerate(features[:, None]):
        place = (slice(batch // columns, None, rows), slice(batch % columns, None, columns))
        for to, made in ((labels, context), (again, parted)):
            out = np.empty((1, trunk.height, trunk.width), np.uint8)
            made.enqueue({trunk.input: HostBuffer(one.astype(np.float32))}, {trunk.output: HostBuffer(out)})
            to[place] = out[0]
        logits[(slice(None), *place)] = logits_of(context, trunk)

    with torch.no_grad():
        expected = network(name).double()(normalised(frame).double())[0].numpy()
    logits = logits[:, : size[0], : size[1]]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=3e-5 * np.abs(expected).max())
    check_labels(labels[None, : size[0], : size[1]], logits[None])
    np.testing.assert_array_equal(again, labels)


@pytest.mark.slow
def test_a_network_that_is_not_compiled_natively(tmp_path: Path) -> None:
    """Dense units put maps side by side."""
    with pytest.raises(EngineError, match="is none that is compiled natively"):
        compiled(graphs_of("smp-dn121", (40, 90), AS_IT_IS), tmp_path)
