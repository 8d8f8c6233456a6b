"""Operations and bytes of an operator, from the types and shapes of what it takes and gives.

A multiply-add is two operations; a comparison, an addition or the like one. Bytes are those of inputs and outputs, each
read or written once: less cannot be moved where nothing stays in a cache. Shapes are those that ran: in ONNX Runtime's
blocked layout a convolution's output channels are rounded up to 8 or 16, and so are its counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

__all__ = ["Cost", "Tensor", "cost_of"]

_WEIGHT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "QLinearConvTranspose": 3}
"""Which input is the second factor; 1 where it is not said. The first factor is input 0."""
_CONVOLUTIONS = ("Conv", "FusedConv", "ConvInteger", "QLinearConv", "NhwcFusedConv")
_TRANSPOSED = ("ConvTranspose", "QLinearConvTranspose")
_PRODUCTS = (
    "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
)  # fmt: skip
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape")
"""Their output is the input's memory under another shape."""
_PICKING = ("Slice", "Gather", "GatherElements", "GatherND")
"""They read of their first input only what they give."""
_MOVING = (
    "Transpose", "Concat", "Split", "Pad", "Cast", "Expand", "Tile", "ReorderInput", "ReorderOutput", "Resize",
    "SpaceToDepth", "DepthToSpace", "Constant", "ConstantOfShape", "MemcpyFromHost", "MemcpyToHost",
)  # fmt: skip
_OVER_INPUTS = ("ArgMax", "ArgMin", "Softmax", "LogSoftmax", "MaxPool", "AveragePool", "QLinearAveragePool")
"""One operation for each element that they look through, as global pools and all that begins with Reduce."""
_BITS = {"double": 64, "float": 32, "float16": 16, "bfloat16": 16, "bool": 8}


@dataclass(frozen=True)
class Tensor:
    """`dtype` is ONNX Runtime's word, such as `float` or `int64`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * _bits(self.dtype) // 8


@dataclass(frozen=True)
class Cost:
    operations: int
    bytes: int


def cost_of(operator: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cost:
    """What an operator of that name does. One that is not known counts as one operation for each element it gives."""
    return Cost(_operations(operator, inputs, outputs), _bytes(operator, inputs, outputs))


def _operations(operator: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    if not outputs or operator in (*_VIEWS, *_PICKING, *_MOVING):
        return 0
    given = outputs[0].size
    if operator in _CONVOLUTIONS:  # a weight is [outputs, inputs / group, rows, columns]
        return 2 * given * prod(inputs[_WEIGHT.get(operator, 1)].shape[1:])
    if operator in _TRANSPOSED:  # [inputs, outputs / group, rows, columns]
        return 2 * inputs[0].size * prod(inputs[_WEIGHT.get(operator, 1)].shape[1:])
    if operator in _PRODUCTS:
        return 2 * given * _summed(inputs[0].shape, inputs[_WEIGHT.get(operator, 1)].shape, outputs[0].shape)
    if operator in _OVER_INPUTS or operator.startswith(("Reduce", "Global", "QLinearGlobal", "QLinearReduce")):
        return inputs[0].size
    if operator in ("Sum", "Max", "Min", "Mean"):
        return given * max(1, len(inputs) - 1)
    return given


def _summed(a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...]) -> int:
    """Length of the sums of a matrix product, whichever factor is transposed and whatever is broadcast."""
    if len(b) == 1:
        return b[0]
    if len(a) == 1:
        return a[0]
    return a[-2] * a[-1] // out[-2 if len(out) > 1 else -1] if prod(out) else 0


def _bytes(operator: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    if operator in _VIEWS:
        return 0
    given = sum(tensor.bytes for tensor in outputs)
    if operator in _PICKING:
        return 2 * given
    return given + sum(tensor.bytes for tensor in inputs)


def _bits(dtype: str) -> int:
    """`int64` to 64; the words without a number are listed."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = "".join(letter for letter in dtype if letter.isdigit())
    return int(digits) if digits else 0
