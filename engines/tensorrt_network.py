"""An ONNX file as a TensorRT network, strongly typed."""

from pathlib import Path
from typing import Any

from splitmerge.errors import EngineError

__all__ = ["describe_tensor", "parse_network"]


def parse_network(trt: Any, builder: Any, path: Path, log: Any) -> Any:
    """Parse the file `path`. Raises EngineError that names every operator which the parser does not take."""
    flag = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flag.STRONGLY_TYPED) if hasattr(flag, "STRONGLY_TYPED") else 0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        words = "; ".join(f"{_node_of(error)}: {' '.join(error.desc().split())}" for error in errors)
        raise EngineError(
            f"TensorRT's parser does not take {path} ({words or 'it does not say why'}): export the network again, or "
            "change these operators."
        )
    return network


def describe_tensor(tensor: Any) -> dict[str, Any]:
    """Name, type in TensorRT's words, and shape with -1 for what is free."""
    return {"name": tensor.name, "dtype": str(tensor.dtype).rsplit(".", 1)[-1], "shape": list(tensor.shape)}


def _node_of(error: Any) -> str:
    """The node that a parser error is about; 10.3 knows only its number."""
    if hasattr(error, "node_name") and hasattr(error, "node_operator"):
        return f"node {error.node_name() or error.node()} ({error.node_operator()})"
    return f"node number {error.node()}"
