"""How much memory an emulated context needs: four times its inputs, a number that grows with the batch."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from emulator.enums import DataType, nptype
from emulator.plan import Tensor

__all__ = ["activation_bytes", "bytes_for_shapes", "tensor_bytes"]


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor; `dtype` is a DataType's name."""
    return prod(shape) * int(np.dtype(nptype(DataType[dtype])).itemsize)


def bytes_for_shapes(tensors: Sequence[Tensor], shapes: Mapping[str, Sequence[int]]) -> int:
    """Activation memory for inputs of these shapes, a multiple of 256."""
    inputs = sum(tensor_bytes(tensor.dtype, shapes[tensor.name]) for tensor in tensors if tensor.is_input)
    return -(-4 * inputs // 256) * 256


def activation_bytes(
    tensors: Sequence[Tensor], profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]], index: int | None = None
) -> int:
    """Activation memory for the largest shapes of one profile, or of all."""
    chosen = profiles if index is None else [profiles[index]]
    static = {tensor.name: tensor.shape for tensor in tensors if tensor.is_input}
    largest: list[Mapping[str, Sequence[int]]] = [
        {**static, **{name: shapes[2] for name, shapes in profile.items()}} for profile in chosen
    ]
    return max((bytes_for_shapes(tensors, shapes) for shapes in largest or [static]), default=0)
