"""What an execution does on its stream: read, compute with ONNX Runtime, and only at its end write."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from emulator.memory import Region
from emulator.streams import Operation, Work

if TYPE_CHECKING:
    from emulator.binding import ExecutionState

__all__ = ["inference"]


def inference(
    state: "ExecutionState", shapes: Mapping[str, tuple[int, ...]], regions: Mapping[str, Region], who: str
) -> Work:
    """The execution of a context, with the shapes and addresses of now. `regions` has the context memory under ""."""
    engine, machine = state.engine, state.engine.machine
    sizes = {**shapes, **engine.output_shapes(shapes)}

    def submitted(operation: Operation) -> None:
        if state.destroyed:
            machine.ledger.broken("destroyed-in-use", f"{who} was destroyed, and a graph that holds it is launched.")
        last = state.last
        if last is not None and last.stream is not operation.stream and not last.covered_by(operation.clock):
            machine.ledger.broken(
                "context-in-flight",
                f"{who} is enqueued on {operation.stream} while its work on {last.stream} may still run.",
            )
        state.last = operation

    def run(operation: Operation) -> Callable[[], None]:
        feeds = {}
        for tensor in engine.inputs():
            region, dtype = regions[tensor.name], engine.dtype(tensor.name)
            block = region.block
            missing = int(np.count_nonzero(~block.written[region.start : region.stop]))
            if missing:
                machine.ledger.broken(
                    "never-written", f"{who} reads {missing} bytes of its {tensor.name} that nothing has written."
                )
            wrong = block.type_conflict(region.start, region.stop, dtype)
            if wrong is not None:
                machine.ledger.broken(
                    "wrong-type", f"{who} reads its {tensor.name} as {dtype}, but it was written as {wrong}."
                )
            raw = block.data[region.start : region.stop].copy()
            feeds[tensor.name] = raw.view(dtype).reshape(sizes[tensor.name])
        for region in regions.values():
            if region.writes:
                region.block.spoil(region.start, region.stop)
        results = engine.run(feeds)

        def finish() -> None:
            for name, array in results.items():
                region, dtype = regions[name], engine.dtype(name)
                raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                region.block.write(region.start, raw, dtype if dtype.itemsize > 1 else None)

        return finish

    first = next(iter(shapes.values()))
    seconds = machine.seconds(engine.label, first[0] if first else 1, engine.device)
    return Work("compute", engine.label, tuple(regions.values()), run, seconds, submitted)
