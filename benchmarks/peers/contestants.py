"""Who takes part: this project in each of its forms, what users would run instead, and the machine's matrix product.

A contestant is a function that a worker process imports by name (`module:function`) and calls with a package's folder
and `arguments`; it gives a `Contender`. A further form of this project is an entry in `packages.FORMS`, a further peer
one in `peers_of`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.limits import GEMM_SIZE
from benchmarks.peers.packages import FORMS, OWN_MAKING
from engines.backends import is_installed

__all__ = ["DEFAULTS", "GEMM", "LIMIT", "PEER", "PEERS", "PROJECT", "Contender", "Contestant", "contestants_of"]

PROJECT, PEER, LIMIT = "project", "peer", "limit"
PEERS = ("eager", "compiled", "onnxruntime", "openvino")
"""Who takes part unless `--peers` chooses."""
DEFAULTS = ("openvino-default",)
"""Who takes part only where asked for: in the precision that it would choose, with other labels."""
GEMM = "matrix product"


@dataclass(frozen=True)
class Contender:
    """A contestant that is set up. `segment` gives labels uint8 [H,W] of a frame uint8 [H,W,3], blue-green-red.

    `margins`, of one that has logits, is how far each pixel's two best lie apart, float32 [H,W]. `notes` are settings
    worth telling.
    """

    segment: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    margins: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """`form` is the package that it is given, one of `packages.FORMS`; `missing` says why it cannot take part.

    `whole` contestants hold the activations of a whole frame at once. Those that have run a frame by the time they are
    loaded, `runs_at_load`, have no memory of a frame apart from the model's.
    """

    name: str
    role: str
    make: str
    form: str = "own"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = True
    runs_at_load: bool = False
    missing: str = ""


def contestants_of(
    forms: Mapping[str, str], cut: Mapping[str, bool], peers: tuple[str, ...], own: tuple[str, ...] = FORMS
) -> list[Contestant]:
    """All for one network on frames of one size. `forms` has the forms that the network has and what their graphs are,
    and of each whether it is `cut` (and so streamed); this project takes part with those that are in `own`."""
    limit = Contestant(GEMM, LIMIT, "benchmarks.peers.rivals:gemm", arguments={"size": GEMM_SIZE})
    return [
        *_project({form: words for form, words in forms.items() if form in own}, cut),
        *peers_of(forms, peers),
        limit,
    ]


def _project(forms: Mapping[str, str], cut: Mapping[str, bool]) -> list[Contestant]:
    """The package as `splitmerge run` executes it by default, then those of the other forms."""
    make = "benchmarks.peers.project:executor"
    return [
        Contestant(f"this project, {words}", PROJECT, make, form, whole=not cut[form], runs_at_load=not cut[form])
        for form, words in forms.items()
    ]


def peers_of(forms: Mapping[str, str], peers: tuple[str, ...]) -> list[Contestant]:
    """Those that were asked for. Graphs of this project's own making, `packages.OWN_MAKING`, are not handed out."""
    rivals = "benchmarks.peers.rivals"
    result = []
    for peer in peers:
        if peer == "eager":
            result.append(Contestant("PyTorch eager", PEER, f"{rivals}:pytorch_eager"))
        elif peer == "compiled":
            result.append(Contestant("PyTorch compiled", PEER, f"{rivals}:pytorch_compiled", runs_at_load=True))
        else:
            name, make = _GRAPH_RUNNERS[peer]
            missing = (
                ""
                if is_installed(peer.removesuffix("-default"))
                else f"{peer} is not installed: pip install -c constraints.txt {peer}"
            )
            result += [
                Contestant(f"{name}, {words}", PEER, f"{rivals}:{make}", form, missing=missing)
                for form, words in forms.items()
                if form not in OWN_MAKING
            ]
    return result


_GRAPH_RUNNERS = {
    "onnxruntime": ("ONNX Runtime", "onnxruntime_defaults"),
    "openvino": ("OpenVINO", "openvino_latency"),
    "openvino-default": ("OpenVINO, own precision", "openvino_own_precision"),
}
