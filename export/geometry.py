"""Kernels, rates and paddings of convolutions and poolings, as pairs of (rows, columns)."""

from dataclasses import dataclass

import onnx_ir as ir

from export.nodes import Window, sizes

__all__ = ["WINDOWED", "Geometry", "geometry_of", "set_geometry"]

WINDOWED = frozenset({"AveragePool", "Conv", "LpPool", "MaxPool"})
"""Operators that slide a kernel over height and width and whose geometry is read here."""


@dataclass(frozen=True)
class Geometry:
    """Of one operator on `[N,C,H,W]`. Pixel i of the output reads i * stride + k * rate - before, k < kernel."""

    kernel: Window
    rate: Window
    stride: Window
    before: Window
    after: Window

    @property
    def spread(self) -> Window:
        """How far apart the first and the last pixel are that the kernel reads."""
        return (self.kernel[0] - 1) * self.rate[0], (self.kernel[1] - 1) * self.rate[1]


def geometry_of(node: ir.Node) -> Geometry | None:
    """The geometry of an operator of `WINDOWED` in two dimensions, None for any other."""
    value = node.inputs[0] if node.inputs else None
    if node.domain or node.op_type not in WINDOWED or value is None or len(sizes(value)) != 4:
        return None
    kernel = _pair(node, "kernel_shape", None)
    if kernel is None:
        assert node.op_type == "Conv" and node.inputs[1] is not None
        rows, columns = sizes(node.inputs[1])[2:]
        assert rows is not None and columns is not None
        kernel = rows, columns
    rate, stride = _pair(node, "dilations", (1, 1)), _pair(node, "strides", (1, 1))
    assert rate is not None and stride is not None
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        before, after = _same(sizes(value)[2:], kernel, rate, stride, upper=auto == "SAME_UPPER")
    else:
        pads = node.attributes["pads"].as_ints() if auto == "NOTSET" and "pads" in node.attributes else (0, 0, 0, 0)
        before, after = (pads[0], pads[1]), (pads[2], pads[3])
    return Geometry(kernel, rate, stride, before, after)


def set_geometry(node: ir.Node, geometry: Geometry) -> None:
    """Give the operator another rate, stride and padding; its kernel stays."""
    node.attributes.pop("auto_pad", None)
    for name, numbers in (
        ("dilations", geometry.rate),
        ("strides", geometry.stride),
        ("pads", (*geometry.before, *geometry.after)),
    ):
        node.attributes.add(ir.AttrInt64s(name, numbers))


def _pair(node: ir.Node, name: str, default: Window | None) -> Window | None:
    if name not in node.attributes:
        return default
    rows, columns = node.attributes[name].as_ints()
    return rows, columns


def _same(
    size: tuple[int | None, ...], kernel: Window, rate: Window, stride: Window, upper: bool
) -> tuple[Window, Window]:
    """The paddings that `auto_pad` stands for: outputs of ceil(size / stride), the odd zero after (upper) or before."""
    pads = []
    for length, k, d, s in zip(size, kernel, rate, stride, strict=True):
        assert length is not None
        total = max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0)
        pads.append((total // 2, total - total // 2) if upper else (total - total // 2, total // 2))
    (top, bottom), (left, right) = pads
    return (top, left), (bottom, right)
