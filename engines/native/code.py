"""Functions in LLVM's language, with loops and vectors: a thin layer over llvmlite's builder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import llvmlite.ir as ir

__all__ = ["FLOAT", "INT", "INT32", "POINTER", "Code", "Loop"]

POINTER, INT, INT32, FLOAT = ir.PointerType(), ir.IntType(64), ir.IntType(32), ir.FloatType()


@dataclass
class Loop:
    """One turn of a loop: its counter and the values handed on from the turn before. What `carry` is set to is handed
    to the next turn; after the loop `carried` are the last turn's, and `index` is where it ended."""

    index: Any
    carried: list[Any]
    carry: list[Any] = field(default_factory=list)


class Code:
    """A function that is being written: `parameters` by name are its attributes. Pointers never overlap but those of
    `alike`.

    `lanes` are the float32 numbers in a vector.
    """

    def __init__(
        self, module: Any, name: str, parameters: Mapping[str, Any], lanes: int, alike: Sequence[str] = ()
    ) -> None:
        self.lanes = lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), list(parameters.values())), name)
        self._arguments = dict(zip(parameters, self.function.args, strict=True))
        for key, argument in self._arguments.items():
            argument.name = key
            if parameters[key] == POINTER and key not in alike:
                argument.add_attribute("noalias")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_arguments"][name]
        except KeyError:
            raise AttributeError(name) from None

    def whole(self, number: int) -> Any:
        return ir.Constant(INT, number)

    def floats(self, number: float) -> Any:
        """A vector of one number."""
        return ir.Constant(self.vector, [number] * self.lanes)

    def at(self, pointer: Any, index: Any, kind: Any = FLOAT) -> Any:
        """The address of element `index`."""
        return self.b.gep(pointer, [self.whole(index) if isinstance(index, int) else index], source_etype=kind)

    def load(self, pointer: Any) -> Any:
        """A vector from anywhere."""
        return self.b.load(pointer, typ=self.vector, align=4)

    def store(self, value: Any, pointer: Any) -> None:
        self.b.store(value, pointer, align=4)

    def fma(self, one: Any, other: Any, added: Any) -> Any:
        """one * other + added, rounded once."""
        name, module = f"llvm.fma.v{self.lanes}f32", self.function.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(self.vector, [self.vector] * 3), name)
        return self.b.call(function, [one, other, added])

    def prefetch(self, pointer: Any) -> None:
        """Have a line brought to the second-level cache."""
        module = self.function.module
        function = module.globals.get("llvm.prefetch.p0")
        if function is None:
            function = ir.Function(
                module, ir.FunctionType(ir.VoidType(), [POINTER, INT32, INT32, INT32]), "llvm.prefetch.p0"
            )
        self.b.call(function, [pointer, *(ir.Constant(INT32, number) for number in (0, 2, 1))])

    def splat(self, number: Any) -> Any:
        """A vector of one computed number."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.b.insert_element(undefined, number, ir.Constant(INT32, 0))
        everywhere = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(first, undefined, everywhere)

    def at_least(self, value: Any, low: Any) -> Any:
        """The larger of two vectors; NaN stays NaN."""
        return self.b.select(self.b.fcmp_ordered(">", low, value), low, value)

    def array(self, kind: Any, count: int) -> Any:
        """Memory of the function's own."""
        with self.b.goto_entry_block():
            return self.b.alloca(kind, count)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: Any = 1, carried: Sequence[Any] = ()) -> Iterator[Loop]:
        """Go from `start` to before `stop` in steps."""
        start, step = (self.whole(number) if isinstance(number, int) else number for number in (start, step))
        before = self.b.block
        head, body, done = (self.function.append_basic_block(name) for name in ("head", "body", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(INT)
        index.add_incoming(start, before)
        handed = []
        for value in carried:
            handed.append(self.b.phi(value.type))
            handed[-1].add_incoming(value, before)
        self.b.cbranch(self.b.icmp_signed("<", index, stop), body, done)
        self.b.position_at_end(body)
        loop = Loop(index, handed)
        yield loop
        following = self.b.add(index, step)
        index.add_incoming(following, self.b.block)
        for value, next_value in zip(handed, loop.carry, strict=True):
            value.add_incoming(next_value, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(done)
