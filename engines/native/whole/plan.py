"""What is kept of a compiled network: its steps with their places in maps, and its weights as kernels read them.

model.native     JSON: maps and steps, with places in the file beside it
model.weights    float32, each array on a line of the cache
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.native.kernels import Tile, vectors_at_once
from engines.native.plan import VERSION, WeightsFile
from engines.native.trunk import Pair
from engines.native.whole.cost import TILES, Windows, fastest_tile
from engines.native.whole.layout import Layout, View, lay_out
from engines.native.whole.network import Convolution, Largest, Network, Resampling, Size, Step
from export.cpu.winograd import filters
from splitmerge.errors import EngineError

__all__ = ["NetworkPlan", "PlannedStep", "read_network_plan", "write_network_plan"]

_MOST = 2**20
"""Pixels of a side, and channels, that nothing here has."""
_MOST_CLASSES = 256

_PAIR = (1, 1)


@dataclass(frozen=True)
class PlannedStep:
    """One step from view to view. `weights` and `more` are places in the file of weights, in numbers: a convolution's
    weights and bias, a scale's factors and offsets, resampling's matrices of height and width."""

    kind: str
    name: str
    source: View
    result: View
    added: View | None
    relu: bool
    weights: int = 0
    more: int = 0
    taps: Pair = _PAIR
    stride: Pair = _PAIR
    rate: Pair = _PAIR
    before: Pair = (0, 0)
    tile: Tile | None = None


@dataclass(frozen=True)
class NetworkPlan:
    """A compiled network: `maps` are their sizes, `mean`, `down` and `across` places in the file of weights."""

    input: str
    mean: int
    lanes: int
    maps: tuple[Size, ...]
    first: View
    steps: tuple[PlannedStep, ...]
    logits: View
    classes: int
    height: int
    width: int
    down: int
    across: int
    output: str


def write_network_plan(network: Network, lanes: int, plan: Path, weights: Path) -> NetworkPlan:
    """Lay a network out and write both files. Raises EngineError where its values cannot lie as they would have to."""
    layout = lay_out(network, lanes)
    views, sizes = layout.views, _map_sizes(network, layout)
    channels = network.sizes[network.logits].channels
    step = {one.result: one for one in layout.steps}.get(network.logits)
    if not isinstance(step, Convolution | Resampling) or not np.array_equal(
        layout.places[network.logits], np.arange(channels)
    ):
        raise EngineError(f"its logits {network.logits} are of no convolution")
    if channels > _MOST_CLASSES:
        raise EngineError(f"its {channels} classes are more than labels of a byte can tell")
    with weights.open("wb") as file:
        written = WeightsFile(file)
        mean = written.add(np.stack([network.mean, network.factors]))
        steps = tuple(_planned(one, layout, sizes, lanes, written, network.first) for one in layout.steps)
        down, across = written.add(network.down), written.add(network.across)
    made = NetworkPlan(
        network.input,
        mean,
        lanes,
        sizes,
        views[network.first],
        steps,
        views[network.logits],
        channels,
        len(network.down),
        len(network.across),
        down,
        across,
        network.output,
    )
    plan.write_text(json.dumps({"network": VERSION, **asdict(made)}, indent=1) + "\n")
    return made


def _map_sizes(network: Network, layout: Layout) -> tuple[Size, ...]:
    sizes: dict[int, Size] = {}
    for name, view in layout.views.items():
        size = network.sizes.get(name)
        if size is not None:  # a copy lies where the others do
            sizes[view.map] = Size(layout.maps[view.map], size.height, size.width)
    return tuple(sizes[index] for index in range(len(layout.maps)))


def _planned(
    step: Step, layout: Layout, sizes: tuple[Size, ...], lanes: int, written: WeightsFile, first: str
) -> PlannedStep:
    source, result = layout.views[step.source], layout.views[step.result]
    added = layout.views[step.added] if step.added is not None else None
    common = (step.result, source, result, added, step.relu)
    if isinstance(step, Resampling):
        return PlannedStep("resample", *common, written.add(step.down), written.add(step.across))
    if isinstance(step, Largest):
        return PlannedStep("largest", *common, taps=step.taps, stride=step.stride, before=step.before)
    places = layout.places[step.source]
    if not isinstance(step, Convolution):
        factors, offsets = np.zeros((2, source.channels), np.float32)
        factors[places], offsets[places] = step.factors, step.offsets
        return PlannedStep("scale", *common, written.add(factors), written.add(offsets))
    out, _, *taps = step.weights.shape
    weights = np.zeros((result.channels, source.channels, *taps), np.float32)
    weights[:out, places] = step.weights
    bias = np.zeros(result.channels, np.float32)
    bias[:out] = step.bias
    tile = None
    if step.source != first:
        channels = source.channels, result.channels
        tile = fastest_tile(Windows.of(step), sizes[source.map], sizes[result.map], channels)
    width = vectors_at_once(lanes, result.channels) * lanes
    panels = weights.reshape(-1, width, source.channels, *taps).transpose(0, 3, 4, 2, 1)
    if tile is not None:
        points = filters(weights, *tile).reshape(-1, result.channels // width, width, source.channels)
        panels = points.transpose(0, 1, 3, 2)
    numbers = written.add(panels), written.add(bias)
    return PlannedStep("convolution", *common, *numbers, (taps[0], taps[1]), step.stride, step.rate, step.before, tile)


def read_network_plan(text: bytes, numbers: int) -> NetworkPlan:
    """The plan in a file, for a file of so many `numbers` of weights. Raises EngineError where it is none of this
    version, or not all of it can be: kernels write where it says."""
    try:
        value: dict[str, Any] = json.loads(text)
        if value.pop("network") != VERSION:
            raise EngineError("The compiled network is of another version of splitmerge: build it again.")
        maps = tuple(Size(**one) for one in value.pop("maps"))
        first, logits = (View(**value.pop(name)) for name in ("first", "logits"))
        steps = tuple(_step(one) for one in value.pop("steps"))
        plan = NetworkPlan(**value, first=first, logits=logits, maps=maps, steps=steps)
        problem = _problem(plan, numbers)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, IndexError) as error:
        raise EngineError(f"The compiled network cannot be read ({error!r}): build it again.") from None
    if problem:
        raise EngineError(f"The compiled network cannot be run, {problem}: build it again.")
    return plan


def _step(value: Mapping[str, Any]) -> PlannedStep:
    pairs = {name: tuple(value[name]) for name in ("taps", "stride", "rate", "before")}
    views = {name: View(**value[name]) for name in ("source", "result")}
    added, tile = value["added"], value["tile"]
    more = {"added": added and View(**added), "tile": tile and tuple(tile)}
    return PlannedStep(**{**value, **pairs, **views, **more})


def _problem(plan: NetworkPlan, numbers: int) -> str:
    """What in a plan cannot be; empty where nothing is wrong."""
    sides = [side for one in plan.maps for side in asdict(one).values()] + [plan.classes, plan.height, plan.width]
    names = [plan.input, plan.output, *(name for step in plan.steps for name in (step.kind, step.name))]
    if not all(type(name) is str for name in names):
        return "it has names that are none"
    if (
        type(plan.lanes) is not int
        or plan.lanes not in (4, 8, 16)
        or not all(type(side) is int and 0 < side < _MOST for side in sides)
    ):
        return "its sizes are none that it can have"
    if not _inside(plan.first, plan, 1) or plan.first.channels != plan.maps[plan.first.map].channels:
        return "its frames are of no map"
    frames, logits = plan.maps[plan.first.map], plan.maps[plan.logits.map]
    if frames.height < plan.height or frames.width < plan.width:
        return "its frames are larger than their map"
    for step in plan.steps:
        problem = _step_problem(step, plan, numbers)
        if problem:
            return f"its step {step.name} {problem}"
    between = [(plan.mean, 2 * frames.channels)]
    between += [(plan.down, plan.height * logits.height), (plan.across, plan.width * logits.width)]
    if not _inside(plan.logits, plan) or plan.classes > min(plan.logits.channels, _MOST_CLASSES):
        return "its labels are of no step's channels"
    return "" if all(_held(place, size, numbers) for place, size in between) else "its file of weights is shorter"


def _step_problem(step: PlannedStep, plan: NetworkPlan, numbers: int) -> str:
    of_frames = step.source == plan.first
    views = [step.result, *([] if step.added is None else [step.added])]
    if not _inside(step.source, plan, 1 if of_frames else plan.lanes) or not all(_inside(one, plan) for one in views):
        return "lies outside its maps"
    source, result = plan.maps[step.source.map], plan.maps[step.result.map]
    if step.added is not None and step.kind not in ("convolution", "resample"):
        return "adds a value and cannot"
    if step.added is not None:
        added = plan.maps[step.added.map]
        if (added.height, added.width, step.added.channels) != (result.height, result.width, step.result.channels):
            return "adds what is not of its size"
    pairs = step.taps, step.stride, step.rate, step.before
    whole = all(len(pair) == 2 and all(type(one) is int and 0 <= one < _MOST for one in pair) for pair in pairs)
    if not whole or 0 in (*step.taps, *step.stride, *step.rate):
        return "has numbers that cannot be"
    if step.tile not in (None, *TILES) or (step.tile is not None and step.kind != "convolution"):
        return "has tiles that there are not"
    if of_frames and (step.kind != "convolution" or step.tile is not None):
        return "reads the frames, which are no vectors"
    if step.kind == "convolution":
        plain = Windows.of(step).can_be_tiled(source, result)
        if step.tile is not None and not plain:
            return "has tiles that it cannot have"
        points = (step.tile[0] + 2) * (step.tile[1] + 2) if step.tile else step.taps[0] * step.taps[1]
        needed = (points * step.source.channels * step.result.channels, step.result.channels)
    else:
        if step.source.channels != step.result.channels:
            return "has other channels than it reads"
        if step.kind == "scale" and (source.height, source.width) != (result.height, result.width):
            return "has other pixels than it reads"
        if step.kind == "largest" and not _has_pixels(step, source, result):
            return "has windows without a pixel"
        matrices = result.height * source.height, result.width * source.width
        needed = {"scale": (step.source.channels,) * 2, "resample": matrices, "largest": (0, 0)}[step.kind]
    held = _held(step.weights, needed[0], numbers) and _held(step.more, needed[1], numbers)
    return "" if held else "needs more than the file of weights has"


def _has_pixels(step: PlannedStep, source: Size, result: Size) -> bool:
    """Whether no window of a pooling lies outside."""
    sides = zip((source.height, source.width), (result.height, result.width), strict=True)
    return all(
        step.before[side] < step.taps[side] and (count - 1) * step.stride[side] - step.before[side] < length
        for side, (length, count) in enumerate(sides)
    )


def _inside(view: View, plan: NetworkPlan, lanes: int | None = None) -> bool:
    """Whether a view's channels are whole vectors of its map."""
    lanes = lanes or plan.lanes
    if not all(type(one) is int and one >= 0 for one in asdict(view).values()) or view.map >= len(plan.maps):
        return False
    fits = view.first + view.channels <= plan.maps[view.map].channels
    return fits and view.channels > 0 and view.first % lanes == 0 and view.channels % lanes == 0


def _held(place: int, size: int, numbers: int) -> bool:
    return type(place) is int and place >= 0 and place + size <= numbers
