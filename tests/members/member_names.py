"""Where the project's syntax trees name members of TensorRT's modules, of pycuda or of the CUDA driver."""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from member_values import HELD_IN, NONE, Evaluator, Known, Project, Value, Values, has_any, library_of, objects

__all__ = ["DriverName", "Subclass", "Use", "find_driver_names", "find_uses"]

_DRIVER = re.compile(r"cu[A-Z][a-z]\w+")


class Use(NamedTuple):
    """An attribute of something that may be any of `values`. `asked`: by hasattr, or by getattr with a default."""

    file: str
    line: int
    scope: str
    text: str
    name: str
    values: Values
    asked: bool = False


class Subclass(NamedTuple):
    """A class of the project under one of a library."""

    file: str
    line: int
    name: str
    base: Value
    defines: frozenset[str]


class DriverName(NamedTuple):
    """A function of the CUDA driver, and the number of arguments where it is seen to be called."""

    file: str
    line: int
    name: str
    arguments: int | None


def find_uses(sources: dict[str, str]) -> tuple[list[Use], list[Subclass]]:
    """All that a project with these files (path to text) uses of the libraries and derives from them."""
    trees = {file: ast.parse(text) for file, text in sources.items()}
    project = Project({_module(file): Known(_libraries(file, tree)) for file, tree in trees.items()})
    known = project.modules

    def read() -> list[_Reader]:
        readers = [_Reader(file, known[_module(file)], project) for file in trees]
        for reader in readers:
            reader.visit(trees[reader.file])
        return readers

    read()  # for classes and annotations: what was assigned is followed again, knowing them
    for each in known.values():
        each.assigned.clear()
    before, readers = -1, read()
    while (now := sum(len(values) for each in known.values() for values in each.assigned.values())) > before:
        before, readers = now, read()  # it only ever grows
    return [use for each in readers for use in each.uses], [found for each in readers for found in each.subclasses]


def find_driver_names(sources: dict[str, str]) -> Iterator[DriverName]:
    """Attributes and whole strings cuXxx, as ctypes needs them: library.cuXxx(a, b) or call("cuXxx", a, b)."""
    for file, text in sources.items():
        counts: dict[ast.AST, int] = {}
        for node in ast.walk(ast.parse(text)):  # calls come before their arguments
            if isinstance(node, ast.Call) and not any(isinstance(a, ast.Starred) for a in node.args):
                counts[node.func] = len(node.args)
                counts |= {a: len(node.args) - i for i, a in enumerate(node.args, 1) if i < len(node.args)}
            match node:
                case ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                    if _DRIVER.fullmatch(name):
                        yield DriverName(file, node.lineno, name, counts.get(node))


class _Reader(ast.NodeVisitor):
    """One walk over one module: tells the evaluator what is defined and assigned, and notes what is used."""

    def __init__(self, file: str, here: Known, project: Project) -> None:
        self.file, self._here = file, here
        self._evaluator = Evaluator(here, project)
        self.uses: list[Use] = []
        self.subclasses: list[Subclass] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            self._here.imported[name] = (alias.name, "")
            if library := library_of(alias.name):
                self._evaluator.declare(name, frozenset({Value(library, ())}))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        library = library_of(module)
        for alias in node.names:
            name = alias.asname or alias.name
            self._here.imported[name] = (module, alias.name)
            if library and f"{module}.{alias.name}" == "pycuda.driver":
                self._evaluator.declare(name, frozenset({Value(library, ())}))
            elif library:
                self._use(node, module, alias.name, frozenset({Value(library, ())}))
                self._evaluator.declare(name, frozenset({Value(library, (alias.name,))}))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.bases])
        values: Values = NONE.union(*(self._evaluator.values(base) for base in node.bases))
        bases = objects(values)
        if bases:  # what it defines is told apart from what it inherits
            defines = frozenset(item.name for item in node.body if isinstance(item, ast.FunctionDef))
            self.subclasses += [Subclass(self.file, node.lineno, node.name, base, defines) for base in values]
            attributes = [item for item in ast.walk(node) if isinstance(item, ast.Attribute)]
            self._evaluator.project.own |= defines | {
                item.attr for item in attributes if isinstance(item.ctx, ast.Store)
            }
        self._evaluator.declare(f"{node.name}()", bases)
        self._evaluator.scopes.append(f"class {node.name}")
        self._evaluator.classes.append(node.name)
        self._evaluator.declare("self", bases)
        self._visit_all(node.body)
        self._evaluator.classes.pop()
        self._evaluator.scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        self._visit_all([*node.decorator_list, *arguments.defaults, *filter(None, arguments.kw_defaults)])
        scope, returns = self._evaluator.scopes[-1], self._evaluator.annotated(node.returns)
        self._evaluator.declare(f"{node.name}()", returns)
        of_class = self._evaluator.classes[-1] if scope.startswith("class ") else ""
        if of_class:
            properties = {"property", "cached_property"} & {ast.unparse(d) for d in node.decorator_list}
            self._evaluator.declare_member(of_class, f".{node.name}" if properties else f".{node.name}()", returns)
        self._evaluator.scopes.append(f"{scope}/{node.name}:{node.lineno}".replace("class ", "of "))
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in filter(None, every):
            held = argument.arg in HELD_IN and _unsaid(argument)
            values = (
                frozenset({Value(HELD_IN[argument.arg], ())})
                if held
                else self._evaluator.annotated(argument.annotation)
            )
            if argument.arg == "self":
                values = self._here.declared.get((f"class {of_class}", "self"), NONE)
            self._evaluator.declare(argument.arg, values)
        self._visit_all(node.body)
        self._evaluator.scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._evaluator.assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all([node.target, *filter(None, [node.value])])
        key = self._evaluator.key(node.target)
        unknown = has_any(node.annotation)
        if unknown and node.value is not None:
            self._evaluator.assign(node.target, node.value)
        if key is None:
            return
        if unknown and self._here.assigned.get(key):
            self._here.declared.pop(key, None)  # what it is given says more than Any
        elif key[1].startswith("."):
            self._evaluator.declare_member(*key, self._evaluator.annotated(node.annotation))
        else:
            self._evaluator.declare(key[1], self._evaluator.annotated(node.annotation))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self._evaluator.assign(node.target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self._evaluator.assign(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._evaluator.assign(node.target, node.iter)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.generic_visit(node)
        if node.optional_vars is not None:
            self._evaluator.assign(node.optional_vars, node.context_expr)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        self._use(node, ast.unparse(node.value), node.attr, self._evaluator.values(node.value))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" as asks), args=[owner, ast.Constant(value=str(name)), *rest]
            ):
                asked = asks == "hasattr" or bool(rest)
                self._use(node.args[1], ast.unparse(owner), name, self._evaluator.values(owner), asked)

    def _use(self, node: ast.stmt | ast.expr, owner: str, name: str, values: Values, asked: bool = False) -> None:
        own = name in self._evaluator.project.own and any(value.path is None for value in values)
        if values and not own and not name.startswith("__"):
            line = node.end_lineno or node.lineno  # an attribute's own name stands at its end
            self.uses.append(Use(self.file, line, self._evaluator.scopes[-1], f"{owner}.{name}", name, values, asked))

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def _unsaid(argument: ast.arg) -> bool:
    return argument.annotation is None or has_any(argument.annotation)


def _libraries(file: str, tree: ast.Module) -> set[str]:
    """The libraries that a module uses: what it imports, what it holds them in, or what it is called after."""
    found: set[str | None] = {"tensorrt"} if "/tensorrt_" in file else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {library_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(library_of(node.module or ""))
        elif isinstance(node, ast.arg) and _unsaid(node):
            found.add(HELD_IN.get(node.arg))
    return {library for library in found if library}


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
