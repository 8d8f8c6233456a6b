"""What an expression of the project may hold of TensorRT's modules or of pycuda.

Neither library is there where the code is checked, and to a type checker both are `Any`; so values are followed by
hand. A value is a library's if it is the module itself (imported, or held in a name or an attribute `trt`, `_trt`,
`cuda` or `_cuda`), is reached from it by attributes, calls, subscripts or loops, or is annotated `Any` in a module that
uses the library: under mypy --strict nothing else stays `Any` unsaid. Names are followed within a function and its
class, functions by what they are annotated to return, across modules.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

__all__ = ["HELD_IN", "NONE", "Evaluator", "Known", "Project", "Value", "Values", "has_any", "library_of", "objects"]

HELD_IN = {"trt": "tensorrt", "_trt": "tensorrt", "cuda": "pycuda", "_cuda": "pycuda"}
_IMPORTERS = ("import_module", "backend_module")
"""Functions that give a module: importlib's, and the project's own for a backend's."""

_LIBRARIES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt", "pycuda": "pycuda"}
_PASS_ON = {"enumerate", "filter", "iter", "list", "map", "max", "min", "next", "reversed", "sorted", "tuple", "zip"}
_DEEPEST = 4  # names in a path; ILogger.Severity.ERROR has three
_TYPED = {"NDArray", "dtype", "ndarray", "Callable"}  # the Any in these is no library's value


class Value(NamedTuple):
    """Of a library: the module or what a dotted `path` in it names; any other object of it where `path` is None."""

    library: str
    path: tuple[str, ...] | None


Values: TypeAlias = frozenset[Value]
NONE: Values = frozenset()


@dataclass
class Known:
    """What is known of one module so far.

    Keys are a scope and a name, or a class and an attribute with its dot; calls have () behind the name.
    """

    libraries: set[str]
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: module, and name there
    declared: dict[tuple[str, str], Values] = field(default_factory=dict)  # by annotation, which decides
    assigned: dict[tuple[str, str], Values] = field(default_factory=dict)


@dataclass
class Project:
    """All modules, and the members of the project's classes by name, where the class is not known."""

    modules: dict[str, Known]
    members: dict[str, Values] = field(default_factory=dict)  # with a dot, () behind methods
    own: set[str] = field(default_factory=set)  # of subclasses of a library's classes


class Evaluator:
    """Says what expressions in one module may hold, in the scope and class that its reader is in."""

    def __init__(self, here: Known, project: Project) -> None:
        self.here, self.project = here, project
        self.scopes, self.classes = ["module"], [""]

    def values(self, node: ast.AST) -> Values:
        match node:
            case ast.Name():
                return self._name(node.id)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
            case ast.Subscript(value=value) | ast.Starred(value=value) | ast.NamedExpr(value=value):
                return objects(self.values(value))
            case ast.IfExp(body=one, orelse=other):
                return self.values(one) | self.values(other)
            case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return self._union(parts)
            case ast.ListComp(elt=part) | ast.SetComp(elt=part) | ast.GeneratorExp(elt=part) | ast.DictComp(value=part):
                return self.values(part)
        return NONE

    def annotated(self, annotation: ast.expr | None) -> Values:
        unknown = annotation is not None and has_any(annotation)
        return frozenset(Value(library, None) for library in self.here.libraries) if unknown else NONE

    def assign(self, target: ast.AST, value: ast.AST) -> None:
        """Add what `value` may hold to what a name, an attribute of self or their elements may hold."""
        if isinstance(target, (ast.Tuple, ast.List)):
            each = value.elts if isinstance(value, ast.Tuple) else []
            for i, part in enumerate(target.elts):
                self.assign(part, each[i] if len(each) == len(target.elts) else value)
            return
        while isinstance(target, (ast.Subscript, ast.Starred)):
            target = target.value
        key, values = self.key(target), self.values(value)
        if isinstance(value, ast.Call) and ast.unparse(value.func).endswith(_IMPORTERS) and key is not None:
            values |= held_in(key[1].removeprefix("."))  # of a name that is only known when it runs
        if key is not None:
            self.here.assigned[key] = self.here.assigned.get(key, NONE) | values

    def declare(self, name: str, values: Values) -> None:
        self.here.declared[(self.scopes[-1], name)] = values

    def declare_member(self, of_class: str, key: str, values: Values) -> None:
        self.here.declared[(of_class, key)] = values
        self.project.members[key] = self.project.members.get(key, NONE) | values

    def key(self, target: ast.AST) -> tuple[str, str] | None:
        if isinstance(target, ast.Name):
            in_class = self.scopes[-1] == f"class {self.classes[-1]}"
            return (self.classes[-1], f".{target.id}") if in_class else (self.scopes[-1], target.id)
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            return (self.classes[-1], f".{target.attr}")
        return None

    def _union(self, nodes: list[ast.expr]) -> Values:
        return NONE.union(*(self.values(node) for node in nodes))

    def _name(self, name: str) -> Values:
        for scope in self._visible():
            for table in (self.here.declared, self.here.assigned):
                if (scope, name) in table:
                    return table[(scope, name)]
        return NONE if name in self.here.imported else held_in(name)

    def _attribute(self, node: ast.Attribute) -> Values:
        owner = self.values(node.value)
        if owner and node.attr not in self.project.own:
            return frozenset(_below(value, node.attr) for value in owner)
        found = self._member(node, f".{node.attr}")
        of_module = isinstance(node.value, ast.Name) and node.value.id in self.here.imported
        return held_in(node.attr) if found is None and not owner and not of_module else found or NONE

    def _member(self, node: ast.Attribute, key: str) -> Values | None:
        """Of the project's own objects: of its class for self, else what classes anywhere declare; None: not known."""
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            place = (self.classes[-1], key)
            return self.here.declared.get(place, self.here.assigned.get(place) or None)
        return self.project.members.get(key)

    def _call(self, node: ast.Call) -> Values:
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), *default]):
                return self._attribute(ast.Attribute(owner, name, ast.Load())) | self._union(default)
            case ast.Call(func=ast.Name(id=name), args=args) if name in _PASS_ON or name == "getattr":
                return objects(self._union(args))
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                library = library_of(name)
                return frozenset({Value(library, ())}) if library else NONE
        if values := self.values(node.func):
            return objects(values)
        if isinstance(node.func, ast.Attribute):
            return self._member(node.func, f".{node.func.attr}()") or NONE
        return self._function(node.func.id) if isinstance(node.func, ast.Name) else NONE

    def _function(self, name: str) -> Values:
        for scope in self._visible():
            if (scope, f"{name}()") in self.here.declared:
                return self.here.declared[(scope, f"{name}()")]
        module, there = self.here.imported.get(name, ("", ""))
        known = self.project.modules.get(module)
        return known.declared.get(("module", f"{there}()"), NONE) if known else NONE

    def _visible(self) -> Iterator[str]:
        """Scopes from the innermost outwards; a class's own names are not seen from its functions."""
        classes = {f"class {name}" for name in self.classes}
        yield from (s for s in reversed(self.scopes) if s not in classes)


def _below(value: Value, name: str) -> Value:
    deep = value.path is None or len(value.path) == _DEEPEST
    return Value(value.library, None if deep or value.path is None else (*value.path, name))


def held_in(name: str) -> Values:
    return frozenset({Value(HELD_IN[name], ())}) if name in HELD_IN else NONE


def library_of(module: str) -> str | None:
    return _LIBRARIES.get(module.split(".")[0])


def objects(values: Values) -> Values:
    return frozenset(Value(value.library, None) for value in values)


def has_any(annotation: ast.AST) -> bool:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).split(".")[-1] in _TYPED:
        return False
    if isinstance(annotation, ast.Name):
        return annotation.id == "Any"
    return any(has_any(child) for child in ast.iter_child_nodes(annotation))
