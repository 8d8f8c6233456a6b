"""What building and loading of all that is compiled natively have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engines.onnxruntime_engine import PROVIDER
from splitmerge.errors import EngineError

__all__ = ["CHECKED_BYTES", "held_against_onnxruntime", "mapped_weights"]

_NEAR_TIES = 1e-3
"""The share of labels that rounding may change: the two largest logits of such a pixel are all but equal."""

CHECKED_BYTES = 300_000_000
"""What a map may take for ONNX Runtime to compute it in one piece. SMP-18 of width 64 has 268 MB at 1024x2048."""


def mapped_weights(path: Path, what: str) -> NDArray[np.float32]:
    """The weights in a file, which all contexts and processes have once. Raises EngineError where it cannot be read."""
    try:
        return np.memmap(path, np.float32, "r")
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} are no weights of a compiled {what} ({error}): build it again.") from None


def held_against_onnxruntime(
    path: Path, feeds: Mapping[str, NDArray[Any]], output: str, labels: NDArray[np.uint8]
) -> str:
    """Says in words how many labels of noise differ from those that ONNX Runtime computes with the graph in `path`.

    Raises EngineError where that are more than near ties explain.
    """
    session = onnxruntime.InferenceSession(path, providers=[PROVIDER])
    (expected,) = session.run([output], dict(feeds))
    differ = int((labels != expected).sum()) if labels.shape == expected.shape else labels.size
    if differ > _NEAR_TIES * labels.size:
        raise EngineError(
            f"Compiled natively, {path} gives {differ} of {labels.size} pixels other labels than ONNX Runtime: build "
            "another form, and report this."
        )
    return f"{differ} of {labels.size} labels of noise differ from ONNX Runtime's"
