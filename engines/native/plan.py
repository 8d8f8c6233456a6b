"""What is kept of a compiled trunk: each convolution's kernel, and its weights as that kernel reads them.

trunk.native     JSON: the steps, with places in the file beside it
trunk.weights    float32, each array on a line of the cache
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from engines.native.jit import Kernel
from engines.native.kernels import LINE, Tile, vectors_at_once
from engines.native.trunk import Convolution, Pair, Trunk
from export.cpu.winograd import filters
from splitmerge.errors import EngineError

__all__ = ["VERSION", "Plan", "Step", "WeightsFile", "read_plan", "write_plan"]

VERSION = 1
"""Of the layout of the weights; another one's are not read."""

_MOST = 2**20
"""Pixels of a side, and channels, that nothing here has."""

_TILES: tuple[Tile, ...] = ((4, 8), (4, 4), (2, 4), (2, 2))


@dataclass(frozen=True)
class Step:
    """One convolution from map to map, `into` and `out` channels with those that fill up vectors. `weights` and `bias`
    are places in the file of weights, in numbers; `tile` is None for a 1x1 one."""

    source: str
    result: str
    added: str | None
    relu: bool
    step: Pair
    tile: Tile | None
    into: int
    out: int
    weights: int
    bias: int

    def kernel(self, lanes: int) -> Kernel:
        return Kernel(self.tile, vectors_at_once(lanes, self.out), self.added is not None)

    @property
    def points(self) -> int:
        """How many matrices the weights `[points,panels,into,width of a panel]` are."""
        return (self.tile[0] + 2) * (self.tile[1] + 2) if self.tile else 1

    def products(self, height: int, width: int) -> int:
        """How often numbers of a map of this size are multiplied by a matrix of weights."""
        if self.tile is None:
            return height * width
        rows, columns = self.step
        return rows * columns * _products((height // rows, width // columns), self.tile)


@dataclass(frozen=True)
class Plan:
    """A compiled trunk: maps of `height` x `width` pixels, `steps` from the value `input` to `logits`, whose first
    `classes` channels are compared."""

    input: str
    channels: int
    height: int
    width: int
    lanes: int
    steps: tuple[Step, ...]
    logits: str
    classes: int
    output: str


class WeightsFile:
    """A file of weights, while it is written: float32, each array on a line of the cache."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._place = file, 0

    def add(self, array: NDArray[Any]) -> int:
        """Where the array lies, in numbers."""
        numbers = np.ascontiguousarray(array, np.float32)
        self._file.write(numbers.tobytes())
        self._file.write(bytes(4 * (-numbers.size % LINE)))
        place = self._place
        self._place += numbers.size + -numbers.size % LINE
        return place


def write_plan(trunk: Trunk, lanes: int, plan: Path, weights: Path) -> Plan:
    """Lay a trunk's weights out and write both files. Raises EngineError where a map has a size it cannot have."""
    with weights.open("wb") as file:
        written = WeightsFile(file)
        steps = tuple(_laid_out(convolution, trunk, lanes, written) for convolution in trunk.steps)
    classes = next(one for one in trunk.steps if one.result == trunk.logits).weights.shape[0]
    made = Plan(
        trunk.input, trunk.channels, trunk.height, trunk.width, lanes, steps, trunk.logits, classes, trunk.output
    )
    plan.write_text(json.dumps({"version": VERSION, **asdict(made)}, indent=1) + "\n")
    return made


def read_plan(text: bytes, numbers: int) -> Plan:
    """The plan in a file, for a file of so many `numbers` of weights. Raises EngineError where it is none of this
    version, or not all of it can be: kernels write where it says."""
    try:
        value: dict[str, Any] = json.loads(text)
        if value.pop("version") != VERSION:
            raise EngineError("The compiled trunk is of another version of splitmerge: build it again.")
        steps = tuple(_step(one) for one in value.pop("steps"))
        plan = Plan(**value, steps=steps)
        problem = _problem(plan, numbers)
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise EngineError(f"The compiled trunk cannot be read ({error!r}): build it again.") from None
    if problem:
        raise EngineError(f"The compiled trunk cannot be run, {problem}: build it again.")
    return plan


def _problem(plan: Plan, numbers: int) -> str:
    """What in a plan cannot be; empty where nothing is wrong."""
    sizes = [plan.channels, plan.height, plan.width, plan.classes]
    if plan.lanes not in (4, 8, 16) or not all(type(size) is int and 0 < size < _MOST for size in sizes):
        return "its sizes are none that it can have"
    channels = {plan.input: -(-plan.channels // plan.lanes) * plan.lanes}
    for step in plan.steps:
        rows, columns = step.step
        whole = [step.into, step.out, step.weights, step.bias, rows, columns]
        if not all(type(number) is int and number >= 0 for number in whole) or not step.into or not step.out:
            return f"the step {step.result} has numbers that cannot be"
        if step.out % plan.lanes or plan.height % rows or plan.width % columns or step.tile not in (None, *_TILES):
            return f"the step {step.result} does not fit its maps"
        if channels.get(step.source) != step.into or step.result in channels:
            return f"the step {step.result} does not follow from those before it"
        if step.added is not None and channels.get(step.added) != step.out:
            return f"the step {step.result} adds what is not of its channels"
        if max(step.weights + step.points * step.into * step.out, step.bias + step.out) > numbers:
            return f"the file of weights is shorter than the step {step.result} needs"
        channels[step.result] = step.out
    last = [step for step in plan.steps if step.result == plan.logits]
    return "" if last and plan.classes <= last[0].out else "its labels are of no step's channels"


def _step(value: Mapping[str, Any]) -> Step:
    tile = value["tile"]
    return Step(**{**value, "step": tuple(value["step"]), "tile": None if tile is None else tuple(tile)})


def _laid_out(convolution: Convolution, trunk: Trunk, lanes: int, written: WeightsFile) -> Step:
    """A convolution's step. Its weights `[points,panels,into,width of a panel]` and bias `[out]` are written, with the
    channels that fill up vectors. Raises EngineError for maps that its taps do not part."""
    out, into, taps, _ = convolution.weights.shape
    whole_out, whole_into = (-(-channels // lanes) * lanes for channels in (out, into))
    weights = np.zeros((whole_out, whole_into, taps, taps), np.float32)
    weights[:out, :into] = convolution.weights
    bias = np.zeros(whole_out, np.float32)
    bias[:out] = convolution.bias
    tile, (rows, columns) = None, convolution.step
    if trunk.height % rows or trunk.width % columns:
        raise EngineError(f"its maps of {trunk.height}x{trunk.width} cannot be parted into {rows}x{columns}")
    if taps == 3:
        tile = _tile(trunk.height // rows, trunk.width // columns)
        at_points = filters(weights, *tile).reshape(-1, whole_out, whole_into)
    else:
        at_points = weights.reshape(1, whole_out, whole_into).astype(np.float64)
    width = vectors_at_once(lanes, whole_out) * lanes
    panels = at_points.reshape(-1, whole_out // width, width, whole_into).transpose(0, 1, 3, 2)
    return Step(
        convolution.source,
        convolution.result,
        convolution.added,
        convolution.relu,
        convolution.step,
        tile,
        whole_into,
        whole_out,
        written.add(panels),
        written.add(bias),
    )


def _tile(height: int, width: int) -> Tile:
    """The tile that takes fewest products for a map of this size, the smaller one of equals: it loses less."""
    return min(reversed(_TILES), key=lambda tile: _products((height, width), tile))


def _products(size: Pair, tile: Tile) -> int:
    down, across = (-(-length // side) * (side + 2) for length, side in zip(size, tile, strict=True))
    return down * across
