"""Layers that several heads are made of."""

from torch import Tensor, nn

__all__ = ["adaptive_average", "conv_block"]


def conv_block(inputs: int, outputs: int, size: int = 1, rate: int = 1) -> nn.Sequential:
    """Convolution that keeps the resolution, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, size, padding=rate * (size // 2), dilation=rate, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def adaptive_average(x: Tensor, rows: int, columns: int) -> Tensor:
    """Average pooling to `[N,C,rows,columns]`, as PyTorch's adaptive pooling, for maps of any size.

    Cell i covers the pixels from floor(i*H/rows) to ceil((i+1)*H/rows). Written as two matrix products, because ONNX
    and TensorRT know no adaptive pooling where cells differ in size.
    """
    height, width = x.shape[-2:]
    return _shares(x, rows, height) @ x @ _shares(x, columns, width).T


def _shares(x: Tensor, cells: int, pixels: int) -> Tensor:
    """What each pixel counts in each cell, `[cells,pixels]`; rows sum to 1."""
    spans = [(cell * pixels // cells, -(-(cell + 1) * pixels // cells)) for cell in range(cells)]
    rows = [[(start <= p < end) / (end - start) for p in range(pixels)] for start, end in spans]
    return x.new_tensor(rows)
