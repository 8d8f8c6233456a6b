"""Follow a graph's frames to the first map of a network: (frames - mean) * factors, with zeros behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from engines.native.whole.network import Floats, Size
from splitmerge.errors import EngineError

__all__ = ["Frames"]

_CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True)
class _State:
    """What has been done to frames."""

    is_float: bool = False
    is_turned: bool = False
    mean: Floats | None = None


class Frames:
    """Names that are frames on their way, and `first`: the map's name, mean and factors. `size` is the map's, None
    until it is there."""

    def __init__(self, name: str, size: Size, constants: Mapping[str, NDArray[Any]]) -> None:
        self._states, self._frame_size, self._constants = {name: _State()}, size, constants
        self._first: tuple[str, Floats, Floats] | None = None
        self.size: Size | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._states

    def are(self, name: str) -> bool:
        """Whether it is the first map."""
        return self._first is not None and self._first[0] == name

    @property
    def first(self) -> tuple[str, Floats, Floats]:
        assert self._first is not None, "labels come from a map"
        return self._first

    def read(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> bool:
        """Whether the node is a step on the way to the first map, which Mul gives."""
        state, channels = self._states[node.input[0]], self._frame_size.channels
        constant = self._constants.get(node.input[1]) if len(node.input) == 2 else None
        if constant is not None and constant.shape != (1, channels, 1, 1):
            return False
        match node.op_type:
            case "Cast" if attributes["to"] == onnx.TensorProto.FLOAT:
                made = replace(state, is_float=True)
            case "Transpose" if state.is_float and not state.is_turned and tuple(attributes["perm"]) == _CHANNELS_FIRST:
                made = replace(state, is_turned=True)
            case "Sub" if state.is_turned and state.mean is None and constant is not None:
                made = replace(state, mean=constant.reshape(-1).astype(np.float32))
            case "Mul" if state.mean is not None and constant is not None and self._first is None:
                self._first = node.output[0], state.mean, constant.reshape(-1).astype(np.float32)
                self.size = self._frame_size
                return True
            case _:
                return False
        self._states[node.output[0]] = made
        return True

    def pad(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> Size:
        """Zeros below and at the right: the first map is larger than the frames are."""
        pads, *more = (self._constants.get(name) for name in node.input[1:] if name)
        numbers = [] if pads is None else pads.tolist()
        zero = not more or (len(more) == 1 and more[0] is not None and not more[0].any())
        if attributes.get("mode", b"constant") != b"constant" or not zero or len(numbers) != 8 or any(numbers[:6]):
            raise EngineError(f"its node {node.name} (Pad) puts something else than zeros behind the frames")
        assert self.size is not None, "it is the first map that is padded"
        self._first = (node.output[0], *self.first[1:])
        self.size = replace(self.size, height=self.size.height + numbers[6], width=self.size.width + numbers[7])
        return self.size
