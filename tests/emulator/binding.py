"""Where an execution reads and writes, checked against what TensorRT asks of addresses and activation memory."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emulator.memory import ALIGNMENT, Block, Region
from emulator.sizes import activation_bytes
from emulator.streams import Operation

if TYPE_CHECKING:
    from emulator.session import EngineState

__all__ = ["ExecutionState", "bound_regions"]

Refuse = Callable[[str, str], object]
"""Takes the rule that is broken, and how."""


class ExecutionState:
    """What outlives a single call. `block` is the context's own memory, None where the user manages it."""

    def __init__(self, engine: "EngineState", block: Block | None) -> None:
        self.engine, self.block = engine, block
        self.last: Operation | None = None
        self.enqueued: set[Any] = set()
        self.destroyed = False


def bound_regions(
    state: ExecutionState,
    shapes: Mapping[str, tuple[int, ...]],
    addresses: Mapping[str, int],
    memory: tuple[int, int] | None,
    needed: int | None,
    refuse: Refuse,
) -> dict[str, Region] | None:
    """Where inputs, outputs and the context's own memory lie; None where a rule was broken and is tolerated."""
    engine = state.engine
    wanted = {**shapes, **engine.output_shapes(shapes)}
    found: dict[str, Region] = {}
    for name, shape in wanted.items():
        address = addresses.get(name, 0)
        what = f"execute_async_v3: {name}"
        if not address:
            refuse("unset-address", f"{what} has no address")
            return None
        if address % ALIGNMENT:
            refuse("misaligned", f"{what} at {address:#x} does not begin at a multiple of {ALIGNMENT} bytes")
            return None
        size = int(np.prod(shape)) * engine.dtype(name).itemsize
        block, start = engine.device.memory.find(address, size, what)
        found[name] = Region(block, start, start + size, not engine.tensors[name].is_input, f"its {name}")
    scratch = _scratch(state, memory, needed, refuse)
    if scratch is not None:
        found[""] = scratch
    _check_overlap(found, refuse)
    return found


def _scratch(state: ExecutionState, memory: tuple[int, int] | None, asked: int | None, refuse: Refuse) -> Region | None:
    engine, own, rule = state.engine, state.block, "shared-context-memory"
    if own is not None:
        return Region(own, 0, own.size, True, "its own memory", rule)
    plan = engine.plan
    needed = asked if asked is not None else activation_bytes(plan.tensors, plan.profiles)
    if not needed:
        return None
    if memory is None:
        refuse("no-device-memory", "execute_async_v3: set_device_memory was not called")
        return None
    address, size = memory
    if size < needed:
        refuse(
            "too-little-device-memory",
            f"execute_async_v3: the device memory has {size} bytes and {needed} are needed (device_memory_size_v2, "
            "or what update_device_memory_size_for_shapes() gives after the shapes are set)",
        )
    block, start = engine.device.memory.find(address, size, "execute_async_v3: the device memory")
    return Region(block, start, start + size, True, "its device memory", rule)


def _check_overlap(regions: Mapping[str, Region], refuse: Refuse) -> None:
    entries = list(regions.items())
    for i, (name, one) in enumerate(entries):
        for other_name, other in entries[i + 1 :]:
            touch = one.block is other.block and one.start < other.stop and other.start < one.stop
            if touch and (one.writes or other.writes):
                refuse(
                    "overlap",
                    f"execute_async_v3: {name or 'the device memory'} and {other_name or 'the device memory'} "
                    "lie in the same bytes",
                )
