"""A list of steps that threads go through together, in compiled code from the first to the last.

A step is some records, a function and its arguments each, which threads take one after the other as they get to them: a
thread that other programs keep from its core holds up no more than what it has begun. After each step all wait until
all of it is done.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numpy.typing import NDArray

from engines.native.code import INT, INT32, POINTER, Code
from engines.native.jit import Kernels, Wanted
from engines.native.memory import aligned

__all__ = ["Packed", "Program", "Record", "Runner"]

Record = tuple[str, Sequence[int | float]]
"""A kernel and its arguments: addresses and whole numbers, and float32 numbers. For those in `_SCRATCH` a number of
bytes: where in the memory of each thread they lie."""

_SCRATCH = ("before", "behind", "half_way")
_INDEX_BITS = 24
"""Of a step's claims and of what is done: how many records. The bits above are the number of the run."""
_SPINS = 2000
"""Times to look whether a step is done before another program is let have the core."""


@dataclass(frozen=True)
class Packed:
    """A kernel that takes two arguments: where its own lie, and the memory of the thread."""

    kernel: Wanted

    @property
    def name(self) -> str:
        return self.kernel.name

    def define(self, module: ir.Module, lanes: int) -> ir.Function:
        return _with_packed_arguments(module, self.kernel.define(module, lanes))


@dataclass(frozen=True)
class Runner:
    """What goes through steps."""

    name = "program"

    def define(self, module: ir.Module, lanes: int) -> ir.Function:
        return _program(module, lanes)


class Program:
    """Steps, run by `threads` threads: the one that asks and others, which end with the program.

    `scratch` is the float32 numbers that each thread needs for itself.
    """

    def __init__(self, kernels: Kernels, steps: Sequence[Sequence[Record]], threads: int, scratch: int) -> None:
        self._function = kernels["program"]
        records = [record for step in steps for record in step]
        ends = np.cumsum([0, *(len(step) for step in steps)])
        self._steps = np.ascontiguousarray(np.stack([ends[:-1], ends[1:]], axis=1), np.int64)
        self._arguments = [_packed(arguments) for _, arguments in records]
        addresses = [kernels.address(name) for name, _ in records]
        places = [one.ctypes.data for one in self._arguments]
        self._records = np.array([addresses, places], np.int64).T.copy()
        self._claims, self._done = np.zeros((2, len(steps)), np.int64)
        self._runs = 0
        self._scratch = [aligned(scratch) for _ in range(threads)]
        self._calls: list[SimpleQueue[Callable[[], None] | None]] = [SimpleQueue() for _ in range(threads - 1)]
        self._end = weakref.finalize(self, _dismiss, self._calls)
        for calls in self._calls:
            threading.Thread(target=_work, args=(calls,), daemon=True).start()

    def run(self) -> None:
        """Go through all steps. Threads that come too late find that all is done."""
        self._begin()
        self._run_steps(0, len(self._steps))

    def run_one_by_one(self) -> Iterator[None]:
        """The same, with a stop after each step."""
        self._begin()
        for step in range(len(self._steps)):
            self._run_steps(step, step + 1)
            yield

    def close(self) -> None:
        """Let the threads end."""
        self._end()

    def _begin(self) -> None:
        self._runs += 1
        self._claims[:] = self._done[:] = self._runs << _INDEX_BITS

    def _run_steps(self, first: int, last: int) -> None:
        *others, own = (self._part(scratch, first, last) for scratch in self._scratch)
        try:
            for calls, part in zip(self._calls, others, strict=True):
                calls.put(part)
        finally:  # whatever interrupts this: what others have begun is done before memory is given back
            own()

    def _part(self, scratch: NDArray[np.float32], first: int, last: int) -> Callable[[], None]:
        """What a thread has to do in this run. Where it comes too late, it looks at what it holds and nothing else."""
        function, number, arguments = self._function, self._runs, self._arguments
        steps, claims, done = (array[first:last] for array in (self._steps, self._claims, self._done))
        records = self._records

        def part(_: object = arguments) -> None:
            arrays = (steps.ctypes.data, len(steps), records.ctypes.data, claims.ctypes.data, done.ctypes.data)
            function(*arrays, number, scratch.ctypes.data)

        return part


def _work(calls: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (part := calls.get()) is not None:
        part()
        del part


def _dismiss(queues: Sequence["SimpleQueue[Callable[[], None] | None]"]) -> None:
    for calls in queues:
        calls.put(None)


def _packed(arguments: Sequence[int | float]) -> NDArray[np.int64]:
    packed = np.zeros(len(arguments), np.int64)
    for index, argument in enumerate(arguments):
        if isinstance(argument, float):
            packed[index : index + 1].view(np.float32)[0] = argument
        else:
            packed[index] = argument
    return packed


def _with_packed_arguments(module: Any, function: Any) -> Any:
    name = f"{function.name}_packed"
    packed = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER]), name)
    arguments, scratch = packed.args
    b = ir.IRBuilder(packed.append_basic_block("entry"))
    values = []
    for index, argument in enumerate(function.args):
        place = b.gep(arguments, [ir.Constant(INT, index)], source_etype=INT)
        if argument.name in _SCRATCH:
            values.append(b.gep(scratch, [b.load(place, typ=INT)], source_etype=ir.IntType(8)))
        else:
            values.append(b.load(place, typ=argument.type))
    b.call(function, values)
    b.ret_void()
    return packed


def _program(module: Any, lanes: int) -> Any:
    """Go through `steps` [count,2], numbers of the first record and of the one behind the last, as one of the threads.

    `records` [n,2] are addresses of functions and of their packed arguments; `claims` [count] are the run's number and
    how many records were taken, `done` [count] the same and how many were done.
    """
    parameters = {"steps": POINTER, "count": INT, "records": POINTER, "claims": POINTER, "done": POINTER}
    code = Code(module, "program", parameters | {"run": INT, "scratch": POINTER}, lanes, ("claims", "done", "scratch"))
    b = code.b
    give_way = ir.Function(module, ir.FunctionType(INT32, []), "sched_yield") if hasattr(os, "sched_yield") else None
    with code.loop(0, code.count) as step:
        place = b.mul(step.index, code.whole(2))
        first, end = (b.load(code.at(code.steps, b.add(place, code.whole(one)), INT), typ=INT) for one in (0, 1))
        count = b.sub(end, first)
        claims, done = (code.at(one, step.index, INT) for one in (code.claims, code.done))
        _take_records(code, first, count, claims, done)
        _wait(code, done, b.add(b.shl(code.run, code.whole(_INDEX_BITS)), count), give_way)
    b.ret_void()
    return code.function


def _take_records(code: Code, first: Any, count: Any, claims: Any, done: Any) -> None:
    """Until none of this run is left."""
    b = code.b
    look, take, call, over = (code.function.append_basic_block(name) for name in ("look", "take", "call", "over"))
    b.branch(look)
    b.position_at_end(look)
    here = b.load_atomic(claims, "acquire", 8, typ=INT)
    taken = b.and_(here, code.whole((1 << _INDEX_BITS) - 1))
    of_run = b.icmp_signed("==", b.lshr(here, code.whole(_INDEX_BITS)), code.run)
    b.cbranch(b.and_(of_run, b.icmp_signed("<", taken, count)), take, over)
    b.position_at_end(take)
    swapped = b.cmpxchg(claims, here, b.add(here, code.whole(1)), "acq_rel", "acquire")
    b.cbranch(b.extract_value(swapped, 1), call, look)
    b.position_at_end(call)
    record = code.at(code.records, b.mul(b.add(first, taken), code.whole(2)), INT)
    arguments = b.load(code.at(record, 1, INT), typ=POINTER)
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER]).as_pointer()
    b.call(b.inttoptr(b.load(record, typ=INT), kind), [arguments, code.scratch])
    b.atomic_rmw("add", done, code.whole(1), "acq_rel")
    b.branch(look)
    b.position_at_end(over)


def _wait(code: Code, done: Any, wanted: Any, give_way: Any) -> None:
    """Until so many are done, or a later run has begun."""
    b = code.b
    entry = b.block
    look, again, yields, over = (code.function.append_basic_block(name) for name in ("look", "again", "yields", "over"))
    b.branch(look)
    b.position_at_end(look)
    spins = b.phi(INT)
    spins.add_incoming(code.whole(0), entry)
    here = b.load_atomic(done, "acquire", 8, typ=INT)
    b.cbranch(b.icmp_signed("<", here, wanted), again, over)
    b.position_at_end(again)
    following = b.add(spins, code.whole(1))
    spins.add_incoming(following, again)
    b.cbranch(b.icmp_signed(">", following, code.whole(_SPINS)), yields, look)
    b.position_at_end(yields)
    if give_way is not None:
        b.call(give_way, [])
    spins.add_incoming(following, yields)
    b.branch(look)
    b.position_at_end(over)
