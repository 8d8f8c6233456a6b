"""Every name of TensorRT, TensorRT-RTX, pycuda and the CUDA driver in the code is in the versions' own member lists."""

import ast
import functools
import io
import re
import tokenize
from pathlib import Path

import pytest
from collect import list_of
from member_lists import FOLDER, driver_problems, read_lists, subclass_problems, use_problems
from member_names import find_driver_names, find_uses

ROOT = Path(__file__).parents[2]
LISTS = read_lists()
RTX = next(each for each in LISTS if each.version.startswith("tensorrt-rtx"))


@functools.cache
def project() -> dict[str, str]:
    """Path to text of all code, and of the tests that only run with a GPU; the other tests would fail by themselves."""
    folders = {path.parent for path in ROOT.glob("*/__init__.py")} | {ROOT / "tests" / "gpu"}
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return {str(file.relative_to(ROOT)): file.read_text() for file in files}


def problems(sources: dict[str, str]) -> list[str]:
    uses, subclasses = find_uses(sources)
    found = [*use_problems(uses, LISTS), *subclass_problems(subclasses, LISTS)]
    called = {file: text for file, text in sources.items() if not file.startswith("tests/")}  # tests match messages
    return found + list(driver_problems(list(find_driver_names(called))))


def test_the_versions_are_the_promised_ones() -> None:
    versions = {path.stem.rpartition("-")[2] for path in FOLDER.glob("tensorrt-[0-9]*.json")}
    assert {".".join(version.split(".")[:2]) for version in versions} == {"10.3", "10.12", "10.16", "11.0", "11.4"}
    assert {"tensorrt-rtx-1.7.1.116", "pycuda-2026.1"} <= {each.version for each in LISTS}
    assert {each.library for each in LISTS} == {"tensorrt", "pycuda"} and len(LISTS) == 7
    assert all(path.stat().st_size < 60_000 for path in FOLDER.glob("*.json"))


def test_the_list_of_the_installed_version_is_what_is_installed() -> None:
    module = pytest.importorskip("tensorrt_rtx", reason="pip install 'splitmerge[rtx]'")
    if not RTX.version.endswith(module.__version__):
        pytest.skip(f"tensorrt_rtx {module.__version__} is installed, and the list is of {RTX.version}")
    found = list_of(module, "tensorrt_rtx", module.__version__)
    assert {name: frozenset(members.split()) for name, members in found["classes"].items()} == RTX.classes


def test_the_lists_tell_the_versions_apart() -> None:
    """What NVIDIA's release notes say: 11 has no weak typing, 10.3 knows no same-capability plans."""
    flags = {each.version: each.classes["BuilderFlag"] for each in LISTS if each.library == "tensorrt"}
    assert {version for version in flags if "FP16" in flags[version]} == {
        "tensorrt-10.3.0", "tensorrt-10.12.0.36", "tensorrt-10.16.1.11",
    }  # fmt: skip
    levels = {each.version for each in LISTS if "SAME_COMPUTE_CAPABILITY" in str(each.classes)}
    assert levels == set(flags) - {"tensorrt-10.3.0"}


def test_every_name_is_in_every_version_or_asked_for() -> None:
    found = problems(project())
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("depth", [None, 0, 1, 2], ids=["objects", "trt.X", "trt.X.Y", "trt.X.Y.Z"])
def test_a_misspelling_of_any_name_in_the_code_is_found(depth: int | None) -> None:
    """All attributes of one kind at once: behind a misspelt owner nothing more is looked at."""
    uses, _ = find_uses(project())
    sources = {file: text for file, text in project().items() if file in {use.file for use in uses}}
    chosen = {use for use in uses if depth in {None if v.path is None else len(v.path) for v in use.values}}
    assert len(chosen) >= 3
    for use in chosen:
        lines = sources[use.file].splitlines(keepends=True)
        word = rf"(?<=\.){use.name}\b(?!_)|(?<=[\"']){use.name}(?=[\"'])"
        lines[use.line - 1] = re.sub(word, f"{use.name}_misspelt", lines[use.line - 1])
        sources[use.file] = "".join(lines)
    found = problems(sources)
    for use in chosen:
        wrong = [
            each for each in found if each.startswith(f"{use.file}:{use.line}: ") and f"{use.name}_misspelt" in each
        ]
        assert wrong, f"{use.file}:{use.line}: {use.text} may be misspelt"


def test_a_search_finds_nothing_that_the_syntax_tree_does_not() -> None:
    """In the tokens alone: `trt.X`, and `.x_y` where a library has a member x_y and no class of the project has one."""
    sources = project()
    seen = {(use.file, use.line, use.name) for use in find_uses(sources)[0]}
    members = {name for each in LISTS for names in each.classes.values() for name in names if "_" in name}
    meant = members - {name for text in sources.values() for name in _defined(text)}
    found = set()
    for file in sorted({file for file, _, _ in seen} | {file for file in sources if file.startswith("engines/")}):
        tokens = list(tokenize.generate_tokens(io.StringIO(sources[file]).readline))
        for owner, dot, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
            ours = name.string not in meant and owner.string not in ("trt", "_trt")
            if dot.string == "." and not ours and not name.string.startswith("__"):
                found.add((file, name.start[0], name.string))
    assert len(found) > 50
    assert found <= seen, sorted(found - seen)


def _defined(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            found.add(getattr(node.target, "attr", getattr(node.target, "id", "")))
    return found


HEAD = "from typing import Any\nimport tensorrt as trt\nimport pycuda.driver as cuda\n"
IN_ALL_11 = "tensorrt-11.0.0.114, tensorrt-11.4.0.106, tensorrt-rtx-1.7.1.116"
WRONG = {
    "config = trt.Builder(log).create_builder_config()\nconfig.set_memory_pool_limits(1)":
        ("in no listed version", "nearest name is set_memory_pool_limit"),
    "flag = trt.BuilderFlag.FP16": ("trt.BuilderFlag.FP16", f"not in {IN_ALL_11}: use what all have, or ask"),
    "flags = trt.BuilderFlag\nprint(flags.FP16)": ("flags.FP16", IN_ALL_11),
    "def f(context: Any) -> None:\n    context.execute_async_v2([1], 2)": (":5: context.execute_async_v2", "_v3"),
    "def f(engine: Any) -> int:\n    return int(engine.device_memory_size)": ("engine.device_memory_size", IN_ALL_11),
    "trt.MemoryPoolType.WORK_SPACE": ("MemoryPoolType.WORK_SPACE", "in no listed version"),
    "trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": ("not in tensorrt-10.3.0: use",),
    "if hasattr(trt.BuilderFlag, 'FP17'): trt.BuilderFlag.FP17": ("in no listed version",),
    "if hasattr(trt.BuilderFlag, 'FP16'): trt.NetworkDefinitionCreationFlag.FP16": ("CreationFlag.FP16 is in no",),
    "def f(c: Any) -> None:\n    c.num_compute_capabilities = 1\n    hasattr(c, 'set_compute_capability')":
        ("c.num_compute_capabilities", "tensorrt-10.3.0, tensorrt-11.0.0.114"),
    "def f(c: Any) -> None:\n    if hasattr(c, 'int8_calibrator'): c.num_compute_capabilities = 1":
        ("c.num_compute_capabilities", "tensorrt-10.3.0, tensorrt-11.0.0.114"),
    "getattr(trt.BuilderFlag, 'FP16')": ("trt.BuilderFlag.FP16", IN_ALL_11),
    "class A:\n    def __init__(self) -> None:\n        self._runtime = trt.Runtime(1)\n"
    "    def f(self) -> None:\n        self._runtime.deserialise_cuda_engine(b'')":
        ("self._runtime.deserialise_cuda_engine", "deserialize_cuda_engine"),
    "class A:\n    context: Any\ndef f(a: A) -> None:\n    a.context.set_adress(1)": ("a.context.set_adress",),
    "def parse() -> Any: ...\nparse().get_layers": ("parse().get_layers",),
    "for layer in [parser.get_layer(i) for i in range(3) if (parser := trt.OnnxParser(1))]:\n    layer.typ":
        ("layer.typ ",),
    "class Monitor(trt.IProgressMonitor):\n    def phase_start(self, a: str, b: str, c: int) -> None: ...\n"
    "    def phase_finished(self, a: str) -> None: ...\n    def step_complete(self, a: str, b: int) -> bool: ...":
        ("Monitor does not define phase_finish of IProgressMonitor, which is in tensorrt-10.12",),
    "class Log(trt.ILogger):\n    def log(self, a: Any, b: str) -> None: self.sevrity": ("self.sevrity",),
    "stream = cuda.Stream(1)\nstream.begin_capture()": ("stream.begin_capture", "pycuda-2026.1"),
    "cuda.memcpy_htod_asynch": ("cuda.memcpy_htod_asynch", "nearest name is memcpy_htod_async"),
    "from pycuda.driver import PinnedArray": ("pycuda.driver.PinnedArray",),
    "cuda.pagelocked_empty(3, 'u1').shapes": (".shapes",),
    "import importlib\nimportlib.import_module('tensorrt').Bilder": (".Bilder", "Builder"),
    "call('cuStreamBeginCapture', 1, 2)": ("not in cuda-driver-13.0: the header's name is cuStreamBeginCapture_v2",),
    "call('cuStreamEndCapture', 1)": ("cuStreamEndCapture is called with 1 arguments and takes 2",),
    "library.cuGraphLaunched(1, 2)": ("cuGraphLaunched is not in cuda-driver-13.0", "cuGraphLaunch"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_name_is_told_with_its_place(text: str) -> None:
    found = problems({"engines/tensorrt_made_up.py": HEAD + text})
    assert len(found) == 1, found
    assert found[0].startswith("engines/tensorrt_made_up.py:")
    assert all(part in found[0] for part in WRONG[text]), found[0]


@pytest.mark.parametrize(
    "text",
    [
        "if hasattr(trt.BuilderFlag, 'FP16'):\n    print(trt.BuilderFlag.FP16)",
        "flags = trt.BuilderFlag\nif hasattr(flags, 'FP16'):\n    print(trt.BuilderFlag.FP16)",
        "def f(config: Any) -> None:\n    if hasattr(config, 'int8_calibrator'): config.int8_calibrator = 1",
        "def f(c: Any) -> None:\n    if hasattr(c, 'set_compute_capability'): c.num_compute_capabilities = 1",
        "getattr(trt, 'ComputeCapability', None)",
        "trt.OnnxParser(1).get_error(0).desc().split()[0].upper()",
        "cuda.pagelocked_empty(3, 'u1').reshape(1).ctypes.data",
        "import torch\ntorch.cuda.is_available()",
        "import ctypes\ndef f(cuda: ctypes.CDLL) -> None:\n    cuda.nothing_of_pycuda",
        "import ctypes\ndef f() -> None:\n    cuda = ctypes.CDLL('x')\n    cuda.nothing_of_pycuda",
        "from numpy.typing import NDArray\ndef f(array: NDArray[Any]) -> None:\n    array.nothing_of_numpy",
        "class Mine:\n    ...\ndef f(mine: Mine, more: list[Mine]) -> None:\n    mine.nothing\n    more[0].nothing",
        "class Log(trt.ILogger):\n    def log(self, a: Any, b: str) -> None: self.mine = b\nLog().mine.strip()",
        "call('cuStreamBeginCapture_v2', 1, 2)\nhasattr(library, 'cuInit')",
    ],
)
def test_a_right_name_is_let_pass(text: str) -> None:
    assert problems({"engines/tensorrt_made_up.py": HEAD + text}) == []


def test_values_are_followed_into_other_modules() -> None:
    """A function that is annotated Any in the module of the library gives a library's value everywhere."""
    sources = {
        "engines/tensorrt_one.py": "from typing import Any\ndef parse(trt: Any) -> Any: return trt.OnnxParser(1, 2)",
        "engines/two.py": "from engines.tensorrt_one import parse\nparser = parse(1)\nparser.parse_from_fail('x')\n",
    }
    (found,) = problems(sources)
    assert found.startswith("engines/two.py:3: parser.parse_from_fail is in no listed version (tensorrt-10.12.0.36, ")
