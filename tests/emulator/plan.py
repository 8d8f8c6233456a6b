"""The emulated plan file: TensorRT's magic and version, then a description as JSON, then the ONNX graph."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["MAGIC", "Plan", "Tensor", "plan_from_bytes", "version_bytes"]

MAGIC = b"ftrt"
_HEADER = 48


@dataclass(frozen=True)
class Tensor:
    """An input or output: `dtype` is a DataType's name, -1 in `shape` a free dimension."""

    name: str
    is_input: bool
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class Plan:
    """All of a plan but the graph. `profiles` give smallest, best and largest shape of each input."""

    name: str
    version: str
    device: str
    capability: str
    multiprocessors: int
    tensors: list[Tensor]
    profiles: list[dict[str, list[list[int]]]]
    layers: list[dict[str, Any]]
    verbosity: str
    hardware_compatibility: str
    flags: list[str] = field(default_factory=list)

    def to_bytes(self, graph: bytes) -> bytes:
        text = json.dumps(asdict(self)).encode()
        body = len(text).to_bytes(8, "little") + text + graph
        head = MAGIC + bytes(20) + version_bytes(self.version)
        return head.ljust(_HEADER, b"\0") + hashlib.sha256(body).digest() + body


def version_bytes(version: str) -> bytes:
    """Bytes 24 to 27 of a plan: major, minor, patch, build."""
    parts = [int(part) for part in version.split(".")]
    return bytes([*parts, 0, 0, 0, 0][:4])


def plan_from_bytes(data: bytes) -> tuple[Plan, bytes]:
    """The plan and its ONNX graph. Raises ValueError where the bytes are no plan or a damaged one."""
    if data[:4] != MAGIC or len(data) < _HEADER + 40:
        raise ValueError("magicTag")
    body = data[_HEADER + 32 :]
    if hashlib.sha256(body).digest() != data[_HEADER : _HEADER + 32]:
        raise ValueError("checksum")
    length = int.from_bytes(body[:8], "little")
    values = json.loads(body[8 : 8 + length])
    values["tensors"] = [Tensor(**tensor) for tensor in values["tensors"]]
    return Plan(**values), body[8 + length :]
