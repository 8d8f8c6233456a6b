"""Natively compiled trunks against PyTorch in float64, and plans that cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_trunks import Made, altered_json, engine_of, exact_logits, logits_of, run

import engines.backends
import engines.native.engine
import engines.native.section
from engines.native.engine import NativeContext, NativeEngine
from engines.native.jit import lanes_here
from engines.native.trunk import Trunk
from splitmerge.errors import EngineError

LANES = [lanes for lanes in (4, 8, 16) if lanes <= lanes_here()]


def residual(size: tuple[int, int] = (16, 24), width: int = 8) -> Trunk:
    """Two stages with a split between, sums with and without a convolution in the shortcut, and bottlenecks."""
    made = Made(width, size)
    made.add(width)
    kept = made.add(width, added="features")
    made.add(2 * width)
    shortcut = made.add(2 * width, taps=1, of=kept, relu=False)
    kept = made.add(2 * width, step=(2, 2), of="value2", added=shortcut)
    made.add(width, taps=1)
    made.add(width, step=(4, 2))
    made.add(2 * width, taps=1, added=kept)
    made.add(5, taps=1, relu=False)
    return made.trunk


def check(context: NativeContext, trunk: Trunk, features: Any, lost: float = 2e-5) -> None:
    """Labels and logits of each split batch are those of float64, but for rounding."""
    expected = exact_logits(trunk, features)
    scale = np.abs(expected).max()
    for one, exact in zip(features, expected, strict=True):
        (labels,) = run(context, trunk, one[None])
        np.testing.assert_allclose(logits_of(context, trunk), exact, rtol=0, atol=lost * scale)
        chosen = np.take_along_axis(exact, labels[None].astype(np.int64), axis=0)[0]
        assert (exact.max(0) - chosen).max() <= 2 * lost * scale
        assert (labels == exact.argmax(0)).mean() > 0.995


@pytest.mark.parametrize("lanes", LANES)
def test_a_trunk_is_float64s_but_for_rounding(lanes: int, tmp_path: Path) -> None:
    trunk = residual()
    context = engine_of(trunk, tmp_path, lanes).create_context()
    check(context, trunk, Made(8, (16, 24), seed=1).features(3))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    ("into", "out", "size", "step"),
    [
        (16, 16, (4, 8), (1, 1)),
        (16, 64, (8, 16), (1, 2)),
        (3, 20, (5, 7), (1, 1)),  # neither vectors nor tiles are full
        (32, 32, (6, 20), (2, 1)),
        (130, 48, (12, 12), (3, 4)),
        (16, 128, (1, 9), (1, 3)),
        (64, 16, (40, 72), (4, 4)),  # several blocks of tiles
        (7, 1, (2, 2), (2, 2)),
    ],
)
def test_a_convolution_of_any_size(
    into: int, out: int, size: tuple[int, int], step: tuple[int, int], lanes: int, tmp_path: Path
) -> None:
    """With ReLU or without, with a sum or without, three taps or one."""
    made = Made(into, size)
    first = made.add(out, step=step)
    made.add(out, step=step, relu=False)
    made.add(out, step=step, added=first)
    made.add(out, taps=1, added=first, relu=False)
    trunk = made.trunk
    check(engine_of(trunk, tmp_path, lanes).create_context(), trunk, made.features())


@pytest.mark.parametrize("rows", range(1, 34))
def test_any_number_of_pixels(rows: int, tmp_path: Path) -> None:
    """Products keep several rows in registers and take what is left by fewer."""
    made = Made(16, (rows, 1))
    for out in (16, 32, 64):
        made.add(out, taps=1)
    check(engine_of(made.trunk, tmp_path).create_context(), made.trunk, made.features())


def test_what_filtering_loses(tmp_path: Path) -> None:
    """Root mean square of what a convolution of 256 channels is off by, of its results' deviation."""
    made = Made(256, (16, 16))
    made.add(256, relu=False)
    features = made.features()
    context = engine_of(made.trunk, tmp_path).create_context()
    run(context, made.trunk, features)
    (exact,) = exact_logits(made.trunk, features)
    assert np.sqrt(np.mean((logits_of(context, made.trunk) - exact) ** 2)) < 8e-6 * exact.std()


def test_labels_are_the_first_of_equals(tmp_path: Path) -> None:
    made = Made(16, (3, 5))
    made.add(4, taps=1, relu=False)
    (step,) = made.steps
    step.weights[:] = 0
    step.bias[:] = [-2, 1, 1, 0]
    labels = run(engine_of(made.trunk, tmp_path).create_context(), made.trunk, made.features())
    assert (labels == 1).all()


@pytest.mark.parametrize("name", ["features", "weights"])
def test_nan_does_not_vanish(name: str, tmp_path: Path) -> None:
    """ReLU keeps it, and its neighbours are not touched by a convolution with one tap."""
    made = Made(16, (3, 5))
    made.add(16, taps=1)
    features = made.features()
    if name == "features":
        features[0, 3, 1, 2] = np.nan
    else:
        made.steps[0].weights[2, 5] = np.nan
    context = engine_of(made.trunk, tmp_path).create_context()
    run(context, made.trunk, features)
    found = np.isnan(logits_of(context, made.trunk))
    assert found[:, 1, 2].all() and found.sum() == 16 if name == "features" else found[2].all() and found.sum() == 15


@pytest.mark.parametrize("map_bytes", [1, 4 * 8 * 12 * 16, 4 * 16 * 24 * 16 - 1])
def test_large_maps_are_computed_part_by_part(map_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the same, for as many sections as there are."""
    trunk, features = residual(), Made(8, (16, 24), seed=2).features(2)
    engine = engine_of(trunk, tmp_path)
    context = engine.create_context()
    expected = run(context, trunk, features)
    monkeypatch.setattr(engines.native.section, "MAP_BYTES", map_bytes)
    parted = engine.create_context()
    assert parted._section is not None and parted._section._inner is not None
    assert (parted._section._inner._inner is not None) == (map_bytes == 1)
    np.testing.assert_array_equal(run(parted, trunk, features), expected)
    last = logits_of(parted, trunk)
    rows, columns = (whole // part for whole, part in zip((16, 24), last.shape[1:], strict=True))
    np.testing.assert_array_equal(last, logits_of(context, trunk)[:, rows - 1 :: rows, columns - 1 :: columns])


@pytest.mark.parametrize("steps", [[(2, 2), (3, 3), (6, 6)], [(2, 2), (3, 2), (1, 1)], [(6, 3), (2, 1), (4, 6)]])
def test_steps_that_are_no_multiples_of_each_other(
    steps: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each split's batches are gone through only where all that follows stays within them."""
    made = Made(8, (12, 24))
    for step in steps:
        made.add(8, step=step)
    made.add(3, taps=1, relu=False)
    monkeypatch.setattr(engines.native.section, "MAP_BYTES", 1)
    context = engine_of(made.trunk, tmp_path).create_context()
    features = made.features()
    exact = exact_logits(made.trunk, features)[0]
    (labels,) = run(context, made.trunk, features)
    assert (labels == exact.argmax(0)).all()


@pytest.mark.parametrize("block", [1, 5, 7, 1000])
def test_blocks_of_tiles_change_nothing(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, features = residual(), Made(8, (16, 24), seed=3).features()
    engine = engine_of(trunk, tmp_path)
    context = engine.create_context()
    run(context, trunk, features)
    monkeypatch.setattr(engines.native.section, "BLOCK", block)
    other = engine.create_context()
    run(other, trunk, features)
    np.testing.assert_array_equal(logits_of(other, trunk), logits_of(context, trunk))


def test_values_share_memory_and_none_too_early(tmp_path: Path) -> None:
    """A chain of many convolutions has as many maps as are alive at once; a value that is added late stays."""
    made = Made(16, (8, 8))
    early = made.add(16)
    for _ in range(6):
        made.add(16)
    made.add(16, added=early)
    made.add(3, taps=1, relu=False)
    context = engine_of(made.trunk, tmp_path).create_context()
    check(context, made.trunk, made.features())
    assert context._section is not None
    addresses = {value.ctypes.data for value in context._section.maps.values()}
    assert len(context._section.maps) == 10 and len(addresses) == 3


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"3", b"\xff", b'{"version": 99}', b'{"version": 1, "steps": [{}]}']
)
def test_a_plan_that_cannot_be_read(text: bytes, tmp_path: Path) -> None:
    weights = tmp_path / "w"
    weights.write_bytes(bytes(64))
    with pytest.raises(EngineError, match="build it again"):
        NativeEngine(text, weights)


@pytest.mark.parametrize("length", [0, 3, 64, -64, -4])
def test_weights_that_are_too_short(length: int, tmp_path: Path) -> None:
    engine_of(residual(), tmp_path)
    weights = tmp_path / "trunk.weights"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(EngineError, match="build it again"):
        NativeEngine((tmp_path / "trunk.native").read_bytes(), weights)
    weights.unlink()
    with pytest.raises(EngineError, match="are no weights of a compiled trunk"):
        NativeEngine((tmp_path / "trunk.native").read_bytes(), weights)


@pytest.mark.parametrize(
    "changed",
    [
        {"lanes": 0}, {"lanes": 5}, {"channels": 99}, {"channels": -1}, {"classes": 0}, {"classes": 10**9},
        {"height": 0}, {"width": 1.5}, {"height": 17}, {"logits": "nothing"}, {"logits": []}, {"input": "other"},
        {"steps": []},
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be(changed: dict[str, Any], tmp_path: Path) -> None:
    """Kernels write where a plan says, so what does not hold together never reaches them."""
    engine_of(residual(), tmp_path)
    path = tmp_path / "trunk.native"
    altered_json(path, **changed)
    with pytest.raises(EngineError, match=r"The compiled trunk cannot be (run|read).*: build it again"):
        NativeEngine(path.read_bytes(), tmp_path / "trunk.weights")


@pytest.mark.parametrize("index", [0, 4])
@pytest.mark.parametrize(
    "changed",
    [
        {"source": "nothing"}, {"source": "value7"}, {"result": "features"}, {"added": "nothing"}, {"added": "value8"},
        {"into": 0}, {"into": 64}, {"out": 0}, {"out": 7}, {"weights": -16}, {"weights": 10**9}, {"weights": 2**70},
        {"bias": -1}, {"bias": 10**9}, {"step": [0, 1]}, {"step": [3, 5]}, {"step": [1]}, {"tile": [4, 16]},
        {"tile": [8]}, {"weights": 0.5},
    ],
)  # fmt: skip
def test_a_step_that_cannot_be(index: int, changed: dict[str, Any], tmp_path: Path) -> None:
    engine_of(residual(width=24), tmp_path)
    path = tmp_path / "trunk.native"
    steps = json.loads(path.read_text())["steps"]
    steps[index] |= changed
    altered_json(path, steps=steps)
    with pytest.raises(EngineError, match=r"The compiled trunk cannot be (run|read).*: build it again"):
        NativeEngine(path.read_bytes(), tmp_path / "trunk.weights")


@pytest.mark.parametrize("shape", [(1, 8, 16, 1), (1, 1, 16, 24), (1, 8, 24, 16), (8, 16, 24)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    context = engine_of(residual(), tmp_path).create_context()
    with pytest.raises(ValueError, match="A trunk was given float32"):
        run(context, residual(), np.zeros(shape, np.float32))


def test_maps_that_cannot_be_parted(tmp_path: Path) -> None:
    made = Made(16, (9, 8))
    made.add(16, step=(2, 2))
    with pytest.raises(EngineError, match="maps of 9x8 cannot be parted into 2x2"):
        engine_of(made.trunk, tmp_path)


def test_a_processor_without_such_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, lanes in [({"avx512f": True, "fma": True}, 16), ({"fma": True}, 8), ({"neon": True}, 4)]:
        monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda features=features: features)
        assert lanes_here() == lanes

    def unknown() -> None:
        raise RuntimeError("cannot tell")

    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", unknown)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert lanes_here() == 4
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(EngineError, match="needs a processor with AVX-512, AVX2 and FMA, or NEON"):
        lanes_here()
