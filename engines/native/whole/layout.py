"""Where each value lies: in a map of its own, or, where values are joined, beside others in a wider one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.native.whole.network import Convolution, Network, Scale, Step
from splitmerge.errors import EngineError

__all__ = ["Layout", "View", "lay_out"]


@dataclass(frozen=True)
class View:
    """Some channels of a map, with those that fill up vectors, which are zero."""

    map: int
    first: int
    channels: int


@dataclass(frozen=True)
class Layout:
    """`steps`, with copies where a value is joined twice; the maps' channels; and of each value its view and which of
    the view's channels are its own."""

    steps: tuple[Step, ...]
    maps: tuple[int, ...]
    views: Mapping[str, View]
    places: Mapping[str, NDArray[np.int64]]


def lay_out(network: Network, lanes: int) -> Layout:
    """Raises EngineError where values cannot lie beside each other as they would have to."""
    return _Layouter(network, lanes).lay_out()


class _Layouter:
    def __init__(self, network: Network, lanes: int) -> None:
        self._network, self._lanes = network, lanes
        self._joined = network.joined
        self._steps = list(network.steps)
        self._filled: dict[str, int] = {}
        self._places: dict[str, NDArray[np.int64]] = {}
        self._maps: list[int] = []
        self._homes: dict[str, tuple[int, int]] = {}
        self._laid: dict[str, list[str]] = {}  # what joined values are made of where they lie

    def lay_out(self) -> Layout:
        self._find_places()
        for name in sorted(self._joined, key=lambda name: -self._filled[name]):
            self._place_joined(name)
        for name in [name for name in self._places if name not in self._homes]:
            self._give_home(name, self._new_map(self._filled[name]), 0)
        views = {name: View(*home, self._filled[name]) for name, home in self._homes.items()}
        return Layout(tuple(self._steps), tuple(self._maps), views, self._places)

    def _find_places(self) -> None:
        network, lanes = self._network, self._lanes
        channels = network.sizes[network.first].channels
        self._filled[network.first], self._places[network.first] = channels, np.arange(channels)
        for step in self._steps:
            self._find_joined(step.source)
            if isinstance(step, Convolution):
                channels = len(step.weights)
                filled, places = -(-channels // lanes) * lanes, np.arange(channels)
            else:
                filled, places = self._filled[step.source], self._places[step.source]
                if step.source == network.first:
                    raise EngineError(f"its step {step.result} reads the frames and is no convolution")
            self._filled[step.result], self._places[step.result] = filled, places
        for name in self._joined:
            self._find_joined(name)
        for step in self._steps:
            if step.added is None:
                continue
            alike = np.array_equal(self._places[step.added], self._places[step.result])
            if not alike or self._filled[step.added] != self._filled[step.result]:
                raise EngineError(f"its step {step.result} adds a value whose channels lie otherwise")

    def _find_joined(self, name: str) -> None:
        if name in self._places or name not in self._joined:
            return
        first, places = 0, []
        for part in self._joined[name]:
            if part == self._network.first:
                raise EngineError(f"its value {name} joins the frames with others")
            self._find_joined(part)
            places.append(self._places[part] + first)
            first += self._filled[part]
        self._filled[name], self._places[name] = first, np.concatenate(places)

    def _place_joined(self, name: str) -> None:
        """Let a value begin where its parts lie one after the other, or make room for them to."""
        if name in self._homes:
            return
        parts = self._joined[name]
        homes = [self._homes.get(part) for part in parts]
        offsets = np.cumsum([0, *(self._filled[part] for part in parts)]).tolist()
        if homes[0] is not None:
            row, column = homes[0]
            if homes == [(row, column + offset) for offset in offsets[:-1]]:
                self._homes[name] = homes[0]
                return
        self._give_home(name, self._new_map(self._filled[name]), 0)

    def _give_home(self, name: str, room: int, first: int) -> None:
        """Let a value lie there, and what it is made of."""
        self._homes[name] = room, first
        for part in self._joined.get(name, ()):
            if part in self._homes:
                part = self._copied(part)
            self._laid.setdefault(name, []).append(part)
            self._give_home(part, room, first)
            first += self._filled[part]

    def _copied(self, part: str) -> str:
        """A value that is the same and has no home yet, made before anything reads what it is joined to."""
        name = f"{part}, once more ({len(self._steps)})"
        own = len(self._places[part])
        ones, zeros = np.ones(own, np.float32), np.zeros(own, np.float32)
        behind = max(index for index, step in enumerate(self._steps) if step.result in self._roots(part))
        self._steps.insert(behind + 1, Scale(part, name, ones, zeros))
        self._filled[name], self._places[name] = self._filled[part], self._places[part]
        return name

    def _roots(self, name: str) -> Sequence[str]:
        """The values of steps that a value is made of, copies among them where it was laid out with copies."""
        if name not in self._joined:
            return [name]
        return [root for part in self._laid.get(name, self._joined[name]) for root in self._roots(part)]

    def _new_map(self, channels: int) -> int:
        self._maps.append(channels)
        return len(self._maps) - 1
