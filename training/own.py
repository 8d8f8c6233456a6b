"""A user's own network, named on the command line as `mypackage.mymodel:build`.

`build(num_classes)` gives an `nn.Module`; where it has a parameter `width`, that is passed, too. The code runs because
the user names it there: a checkpoint's word is never enough. What is asked of the module:

    input and output    normalised float32 `[N,3,H,W]` to logits `[N,num_classes,H,W]`, in evaluation
    sizes               H and W that are multiples of its attribute `stride`, 32 where it has none
    evaluation          the same result every time, of each image by itself, without changing its own buffers
    weights             all in its state dict, float32; they are saved and loaded under its own names
    loss                optional: `loss(images, labels)`, otherwise cross entropy of its logits

What export asks beside that, such as tensor operations alone, export checks.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splitmerge.errors import InputError
from training.models import build_model, network_named
from training.networks.base import Network, SegmentationNet

__all__ = ["OwnNetwork", "is_own", "model_named_by_user", "named_by_user"]

_STRIDE = 32


class OwnNetwork(SegmentationNet):
    """A user's module behind what training, export and comparing rely on. Its state dict is the module's."""

    def __init__(self, network: nn.Module, num_classes: int, width: int) -> None:
        stride = getattr(network, "stride", _STRIDE)
        if not isinstance(stride, int) or stride < 1:
            raise InputError(f"{type(network).__name__}.stride is {stride!r}: give a whole number of pixels.")
        super().__init__(num_classes, width, stride)
        self.network = network
        # PyTorch gives these two no types.
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    def padded_logits(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        own = getattr(self.network, "loss", None)
        if not callable(own):
            return super().loss(images, labels)
        loss: Tensor = own(images, labels)
        return loss


def is_own(name: str) -> bool:
    """Whether a name is that of a user's own network."""
    return ":" in name


def named_by_user(name: str) -> Network:
    """The network of a name that the user gave, which may be `module:function` of their own code: it is imported.

    Raises InputError where there is none.
    """
    if not is_own(name):
        return network_named(name)
    function = _imported(name)

    def build(num_classes: int, width: int) -> SegmentationNet:
        return _built(name, function, num_classes, width)

    return Network(build)


def model_named_by_user(name: str, num_classes: int, width: int) -> SegmentationNet:
    """`create_model` for a name that the user gave. Raises InputError also for what breaks the rules above."""
    return build_model(named_by_user(name), num_classes, width)


def _imported(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it, also for the installed command
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # whatever the user's own code raises
        raise InputError(
            f"The network {name} cannot be imported ({_reason(error)}): give --model MODULE:FUNCTION, with "
            "the module in this folder or installed."
        ) from error
    if not callable(function):
        raise InputError(f"The network {name} is no function: name one that takes num_classes and gives a module.")
    return function  # type: ignore[no-any-return]  # anything callable


def _built(name: str, function: Callable[..., Any], num_classes: int, width: int) -> SegmentationNet:
    try:
        takes_width = "width" in inspect.signature(function).parameters
        network = function(num_classes=num_classes, **({"width": width} if takes_width else {}))
    except Exception as error:  # whatever the user's own code raises
        raise InputError(
            f"{name} made no network of {num_classes} classes ({_reason(error)}): it is called as "
            "build(num_classes=N), with width=N where it has such a parameter."
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} gives a {type(network).__name__} where a torch.nn.Module was expected.")
    own = OwnNetwork(network, num_classes, width)
    _check(name, own)
    return own


def _check(name: str, own: OwnNetwork) -> None:
    """Run the network on two small images. Raises InputError where it breaks the rules."""
    for key, value in own.state_dict().items():
        if value.dtype != torch.float32 and not key.endswith("num_batches_tracked"):
            raise InputError(
                f"{name} has {key} in {_word(value.dtype)} where float32 was expected: call .float() on it."
            )
    height, width = (own.stride * -(-least // own.stride) for least in (64, 96))
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    before = {key: value.clone() for key, value in own.state_dict().items()}
    training = own.training
    own.eval()
    try:
        with torch.no_grad():
            first, again, alone = own.network(x), own.network(x), own.network(x[:1])
    except Exception as error:  # whatever the user's own code raises
        raise InputError(
            f"{name} cannot compute images of 2x3x{height}x{width} ({_reason(error)}): set its attribute "
            "`stride` to what heights and widths must be a multiple of."
        ) from error
    own.train(training)
    expected = (2, own.num_classes, height, width)
    if not isinstance(first, Tensor) or tuple(first.shape) != expected or first.dtype != torch.float32:
        raise InputError(
            f"{name} gives {_described(first)} for images of 2x3x{height}x{width} where float32 "
            f"{'x'.join(map(str, expected))} was expected: upsample the logits to the images' size, and return them "
            "alone in evaluation."
        )
    changed = [key for key, value in own.state_dict().items() if not torch.equal(value, before[key])]
    if changed:
        raise InputError(f"{name} changes {changed[0]} in evaluation: do so only where self.training is true.")
    if not torch.equal(first, again):
        raise InputError(f"{name} gives another result each time in evaluation: draw nothing at random there.")
    if not torch.allclose(first[:1], alone, rtol=0, atol=1e-4 * float(first.abs().max())):
        raise InputError(f"{name} lets one image of a batch change another's logits: normalise each by itself.")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{_word(value.dtype)} {'x'.join(map(str, value.shape))}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _renamed(state, f"{prefix}network.", prefix)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _renamed(state, prefix, f"{prefix}network.")


def _renamed(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key[len(old) :]] = state.pop(key)
