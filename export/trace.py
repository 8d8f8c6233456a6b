"""From PyTorch to an onnx-ir graph in which split and merge pooling are still one node each.

The batch stays free, height and width become constants. Values get the names of the PyTorch modules that compute them
(`layer2.0.conv1`); whatever else the exporter noted, file names and stack traces among it, is dropped.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch
from onnx.defs import OpSchema
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

import training.layers  # noqa: F401 (registers the two custom operators)
from export.nodes import DOMAIN, MERGE, SPLIT
from splitmerge.errors import CheckpointError, InputError

__all__ = ["OPSET", "trace"]

OPSET = 19  # the first in which int8 scales may be float16; TensorRT 10.3 and later read it
_PREFIX = "network."


def trace(network: nn.Module, height: int, width: int) -> ir.Model:
    """The graph of `network.padded_logits`, or of `network` itself where it has no such method.

    Input `x` is float32 `[N,3,height,width]` with N free, output whatever the network returns. Raises CheckpointError
    for weights that are not finite, InputError for a network that PyTorch's exporter cannot trace.
    """
    for name, weight in network.state_dict().items():
        if not torch.isfinite(weight).all():
            raise CheckpointError(
                f"The network has NaN or infinite values in {name}: go back to an earlier checkpoint."
            )
    model = _exported(network, height, width)
    fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    _own_weights(model.graph)
    _name_by_module(model.graph)
    _forget_metadata(model)
    return model


def _exported(network: nn.Module, height: int, width: int) -> ir.Model:
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Traced(network).eval(),
                (torch.zeros(2, 3, height, width),),  # two images: a batch of one would be taken for a constant
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                input_names=["x"],
                custom_translation_table=_translations(),
                verbose=False,
            )
    except Exception as error:  # whatever the network's own code raises, too
        raise InputError(
            f"PyTorch's exporter cannot trace {type(network).__name__} at {height}x{width} ({_reason(error)}): its "
            "forward must be made of tensor operations alone, without decisions on what the tensors hold."
        ) from error
    assert program is not None
    return program.model


def _reason(error: BaseException) -> str:
    """What the exporter's last word on a failure is about: the first line of the error it all began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines()]
    return f"{type(error).__name__}: {next(filter(None, lines), 'it does not say why')}"


class _Traced(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return getattr(self.network, "padded_logits", self.network)(x)


def _translations() -> dict[Any, Any]:
    """How the two custom operators of `training.layers` are written in ONNX."""
    opset = onnxscript.values.Opset(DOMAIN, 1)
    split, merge = (onnxscript.values.Op(opset, name, _schema(name)) for name in (SPLIT, MERGE))
    return {
        torch.ops.splitmerge.split_pool.default: lambda x, rows, columns: split(x, window=[rows, columns]),
        torch.ops.splitmerge.merge_pool.default: lambda x, rows, columns: merge(x, window=[rows, columns]),
    }


def _schema(name: str) -> OpSchema:
    return OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter("x", "T")],
        outputs=[OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[OpSchema.Attribute("window", OpSchema.AttrType.INTS, "rows and columns")],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter tells its developers (deprecations, graphs) from the user's screen."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _own_weights(graph: ir.Graph) -> None:
    """Copy the weights, which still belong to the PyTorch network, and name them as its state dict does."""
    for value in list(graph.initializers.values()):
        assert value.const_value is not None and value.name is not None
        name = value.name.removeprefix(_PREFIX)
        value.const_value = ir.tensor(np.array(value.const_value.numpy()), name=name)
        value.name = name


def _forget_metadata(model: ir.Model) -> None:
    common.ClearMetadataAndDocStringPass()(model)  # of nodes and graphs
    model.metadata_props.clear()
    outputs = (output for node in model.graph for output in node.outputs)
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *outputs):
        value.metadata_props.clear()


def _name_by_module(graph: ir.Graph) -> None:
    """Name each node and its output after the module whose weight it uses, or else its module and operator."""
    taken: set[str] = {value.name for value in graph.inputs if value.name}
    for node in graph:
        stem = _weight_owner(node) or ".".join(part for part in (_scope(node), _word(node)) if part)
        name, count = stem, 0
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        node.name = name
        for index, output in enumerate(node.outputs):
            output.name = name if index == 0 else f"{name}:{index}"


def _weight_owner(node: ir.Node) -> str | None:
    for value in node.inputs[1:]:
        if value is not None and value.is_initializer() and value.name and value.name.endswith(".weight"):
            return value.name.removesuffix(".weight")
    return None


def _scope(node: ir.Node) -> str:
    """The module that a node comes from, as in `named_modules`; the exporter lists it before the operator's name."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
    names = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    return names[-2].removeprefix(_PREFIX).removeprefix(_PREFIX[:-1]) if len(names) > 1 else ""


def _word(node: ir.Node) -> str:
    return node.op_type.lower().removesuffix("pool") if node.domain == DOMAIN else node.op_type.lower()
