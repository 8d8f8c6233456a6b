"""Holds the names that the project uses against what each listed version has."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from member_names import DriverName, Subclass, Use
from member_values import Value

__all__ = ["FOLDER", "MemberList", "driver_problems", "read_lists", "subclass_problems", "use_problems"]

FOLDER = Path(__file__).parent
_PYTHON = {name for kind in (str, bytes, int, float, tuple, list, dict, set) for name in dir(kind)}
_OF_RESULTS = {"tensorrt": _PYTHON, "pycuda": _PYTHON | set(dir(np.ndarray))}
"""Methods return Python's own objects too, and the lists do not say which."""


@dataclass(frozen=True)
class MemberList:
    """One version of a library, as collect.py wrote it; `version` is the file's name."""

    library: str
    version: str
    names: frozenset[str]
    classes: dict[str, frozenset[str]]

    def has(self, value: Value, name: str) -> bool:
        """Whether `value` may have the attribute. What is missing itself is one problem, not one more per attribute."""
        if value.path is None:
            return name in _OF_RESULTS[self.library] or any(name in members for members in self.classes.values())
        if not value.path:
            return name in self.names or name in self.classes
        if ".".join(value.path) in self.classes:
            return name in self.classes[".".join(value.path)]
        owner = Value(value.library, value.path[:-1])
        return not self.has(owner, value.path[-1]) or self.has(Value(value.library, None), name)


def read_lists(folder: Path = FOLDER) -> list[MemberList]:
    """The lists of Python modules."""
    found = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        if "classes" in content:
            library = "pycuda" if content["module"].startswith("pycuda") else "tensorrt"
            classes = {name: frozenset(members.split()) for name, members in content["classes"].items()}
            found.append(MemberList(library, path.stem, frozenset(content["names"].split()), classes))
    return found


def use_problems(uses: list[Use], lists: list[MemberList]) -> list[str]:
    """One line for each name that some version lacks, unless the module asks first, with hasattr or getattr.

    It may ask anywhere for the very name, or earlier in the same function for one that only versions with both have.
    """
    found = []
    for use in uses:
        lacking = {value: _lacking(value, use.name, lists) for value in use.values}
        if not any(not versions or _is_asked(use, value, versions, uses, lists) for value, versions in lacking.items()):
            found.append(f"{use.file}:{use.line}: {use.text} is {_where(use, lacking, lists)}")
    return list(dict.fromkeys(found))


def _is_asked(use: Use, value: Value, lacking: list[str], uses: list[Use], lists: list[MemberList]) -> bool:
    if len(lacking) == sum(each.library == value.library for each in lists):
        return False
    for other in uses:
        if other.asked and other.file == use.file:
            if other.name == use.name and value in other.values:
                return True
            before = other.scope == use.scope and other.line <= use.line
            if before and any(set(lacking) <= set(_lacking(each, other.name, lists)) for each in other.values):
                return True
    return False


def _lacking(value: Value, name: str, lists: list[MemberList]) -> list[str]:
    return [each.version for each in lists if each.library == value.library and not each.has(value, name)]


def _where(use: Use, lacking: dict[Value, list[str]], lists: list[MemberList]) -> str:
    libraries = {value.library for value in use.values}
    lists = [each for each in lists if each.library in libraries]
    versions = sorted(
        {version for each in lacking.values() for version in each}, key=[each.version for each in lists].index
    )
    if len(versions) < len(lists):
        return f"not in {', '.join(versions)}: use what all have, or ask with hasattr first"
    known = {name for each in lists for names in (each.names, each.classes, *each.classes.values()) for name in names}
    near = difflib.get_close_matches(use.name, sorted(known), 1)
    return f"in no listed version ({', '.join(versions)})" + (f": the nearest name is {near[0]}" if near else "")


def subclass_problems(subclasses: list[Subclass], lists: list[MemberList]) -> list[str]:
    """One line for each method of an interface, trt.IXxx, that a subclass does not define or spells otherwise."""
    found: dict[str, list[str]] = {}
    for subclass in subclasses:
        base = ".".join(subclass.base.path or ())
        for each in lists:
            members = each.classes.get(base, frozenset()) if base[:1] == "I" and base[1:2].isupper() else frozenset()
            for name in sorted({name for name in members if name.islower()} - subclass.defines):
                place = f"{subclass.file}:{subclass.line}: {subclass.name}"
                found.setdefault(f"{place} does not define {name} of {base}", []).append(each.version)
    return [f"{problem}, which is in {', '.join(versions)}" for problem, versions in found.items()]


def driver_problems(names: list[DriverName], folder: Path = FOLDER) -> Iterator[str]:
    """One line for each function that the driver does not have by this name, or that takes more or fewer arguments."""
    (path,) = folder.glob("cuda-driver-*.json")
    functions: dict[str, int] = json.loads(path.read_text())["functions"]
    for use in names:
        place = f"{use.file}:{use.line}: {use.name}"
        if use.name not in functions:
            newer = [name for name in functions if name.startswith(f"{use.name}_v")]
            near = newer or difflib.get_close_matches(use.name, functions, 1)
            yield f"{place} is not in {path.stem}" + (f": the header's name is {near[0]}" if near else "")
        elif use.arguments is not None and use.arguments != functions[use.name]:
            yield f"{place} is called with {use.arguments} arguments and takes {functions[use.name]} in {path.stem}"
