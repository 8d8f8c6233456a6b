"""Plans of natively compiled networks that cannot be: kernels write where a plan says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_networks import MadeNetwork, labels_of, network_engine
from native_trunks import altered_json

from engines.native.whole.engine import NetworkEngine
from splitmerge.errors import EngineError


def made() -> MadeNetwork:
    """Steps: convolution of the frames, the largest, scale, tiles, resampling with a sum, logits."""
    made = MadeNetwork((16, 24))
    made.convolve(24, (7, 7), (2, 2))
    kept = made.largest((3, 3), (2, 2), (1, 1))
    made.scale()
    made.convolve(24)
    made.resample(4, 6, added=kept)
    made.join(kept, made.last)
    made.convolve(5, (1, 1), relu=False)
    return made


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    network_engine(made().network, tmp_path)
    return tmp_path / "model.native"


def refused(plan: Path) -> None:
    with pytest.raises(
        EngineError, match=r"The compiled network (cannot be (run|read)|is of another).*: build it again"
    ):
        NetworkEngine(plan.read_bytes(), plan.with_suffix(".weights"), 1)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"3", b"\xff", b'{"network": 99}', b'{"network": 1, "steps": [{}]}']
)
def test_a_plan_that_cannot_be_read(text: bytes, plan: Path) -> None:
    plan.write_bytes(text)
    refused(plan)


@pytest.mark.parametrize("length", [0, 3, 64, -64, -4])
def test_weights_that_are_too_short(length: int, plan: Path) -> None:
    weights = plan.with_suffix(".weights")
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(EngineError, match="build it again"):
        NetworkEngine(plan.read_bytes(), weights, 1)
    weights.unlink()
    with pytest.raises(EngineError, match="are no weights of a compiled network"):
        NetworkEngine(plan.read_bytes(), weights, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"lanes": 0}, {"lanes": 5}, {"lanes": 32}, {"classes": 0}, {"classes": 99}, {"height": 17}, {"width": 25},
        {"height": 0}, {"width": 1.5}, {"mean": -1}, {"mean": 10**9}, {"down": 10**9}, {"across": -16}, {"down": 0.5},
        {"maps": []}, {"first": {"map": 9, "first": 0, "channels": 3}},
        {"first": {"map": 0, "first": 0, "channels": 2}},
        {"logits": {"map": 99, "first": 0, "channels": 16}}, {"logits": {"map": 1, "first": 16, "channels": 64}},
        {"logits": {"map": 1, "first": 1, "channels": 16}}, {"logits": {"map": -1, "first": 0, "channels": 16}},
        {"logits": 3}, {"steps": [{}]}, {"network": 2}, {"lanes": 16.0}, {"input": 3}, {"output": None},
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be(changed: dict[str, Any], plan: Path) -> None:
    altered_json(plan, **changed)
    refused(plan)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "other"}, {"kind": 3}, {"source": {"map": 99, "first": 0, "channels": 32}},
        {"source": {"map": 1, "first": 64, "channels": 32}}, {"source": {"map": 1, "first": 0, "channels": 64}},
        {"result": {"map": 1, "first": -16, "channels": 32}}, {"result": {"map": 1, "first": 0, "channels": 0}},
        {"result": {"map": 0, "first": 0, "channels": 3}}, {"result": {"map": 1, "first": 7, "channels": 32}},
        {"added": {"map": 0, "first": 0, "channels": 3}}, {"added": {"map": 99, "first": 0, "channels": 32}},
        {"taps": [0, 1]}, {"taps": [3]}, {"taps": [1000, 1000]}, {"stride": [0, 0]}, {"stride": [2.5, 1]},
        {"stride": [-1, 1]}, {"rate": [0, 1]}, {"before": [-1, 0]}, {"before": [1]}, {"tile": [4, 16]}, {"tile": [8]},
        {"taps": [3, 3, 3], "stride": [1]}, {"name": 3},
        {"weights": -16}, {"weights": 10**9}, {"weights": 0.5}, {"more": -1}, {"more": 10**9}, {"relu": [], "x": 1},
    ],
)  # fmt: skip
def test_a_step_that_cannot_be(index: int, changed: dict[str, Any], plan: Path) -> None:
    """Only how many taps there are is free, of steps that have no weights for them."""
    steps = json.loads(plan.read_text())["steps"]
    steps[index] |= changed
    altered_json(plan, steps=steps)
    if steps[index]["kind"] != "convolution" and changed == {"taps": [1000, 1000]}:
        context = NetworkEngine(plan.read_bytes(), plan.with_suffix(".weights"), 1).create_context()
        assert labels_of(context, made().frames()).shape == (1, 16, 24)
    else:
        refused(plan)


def test_steps_that_cannot_add(plan: Path) -> None:
    steps = json.loads(plan.read_text())["steps"]
    for index in (1, 2):
        altered_json(
            plan, steps=[one | {"added": one["result"]} if at == index else one for at, one in enumerate(steps)]
        )
        refused(plan)


def test_windows_without_a_pixel(plan: Path) -> None:
    steps = json.loads(plan.read_text())["steps"]
    for changed in ({"before": [3, 1]}, {"stride": [4, 2]}, {"stride": [2, 9]}):
        altered_json(plan, steps=[steps[0], steps[1] | changed, *steps[2:]])
        refused(plan)


def test_maps_of_another_size(plan: Path) -> None:
    """Every map one row or column smaller or larger: refused, or run within bounds."""
    maps = json.loads(plan.read_text())["maps"]
    for index in range(len(maps)):
        for key in ("height", "width"):
            for more in (-1, 1):
                altered_json(
                    plan, maps=[one | {key: one[key] + more} if i == index else one for i, one in enumerate(maps)]
                )
                try:
                    engine = NetworkEngine(plan.read_bytes(), plan.with_suffix(".weights"), 1)
                except EngineError:
                    continue
                frames = np.zeros((1, *engine.inputs[0].shape[1:]), np.uint8)
                assert labels_of(engine.create_context(), frames).shape == frames.shape[:3]
