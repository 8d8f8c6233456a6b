"""Write down what the real bindings have: the member lists beside this file, which test_members.py reads.

Needs gcc, nm and, for TensorRT, the Python that its wheels are for (3.11 here). Nothing here needs a GPU, a driver or
TensorRT's libraries: the bindings are loaded against stand-ins that hold the missing symbols and nothing behind them.

    pip download --no-deps --dest wheels tensorrt-cu12-bindings==10.3.0        # and the other versions, one by one
    python tests/members/collect.py wheel wheels/tensorrt_cu12_bindings-*.whl
    python tests/members/collect.py module tensorrt_rtx                        # pip install tensorrt-rtx-cu13
    python tests/members/collect.py header $CUDA_HOME/include/cuda.h

pycuda is compiled from its sources (with setuptools, numpy, pytools, platformdirs and the CUDA toolkit), linked with a
stand-in for the driver:

    python tests/members/collect.py driver $CUDA_HOME/include/cuda.h stubs
    pip download --no-deps --no-build-isolation --no-binary :all: pycuda==2026.1 && tar xf pycuda-2026.1.tar.gz
    cd pycuda-2026.1 && python configure.py --cuda-root=$CUDA_HOME --cudadrv-lib-dir=$PWD/../stubs \\
        --no-cuda-enable-curand && python setup.py build_ext --inplace && cd ..
    LD_LIBRARY_PATH=stubs PYTHONPATH=pycuda-2026.1 python tests/members/collect.py module pycuda.driver

A list is an object: "module" and "version"; "names", the functions and constants of the module; "classes", each with
its public members, its bases' included. Names stand in strings with a space between, a class a line, to be read and
compared. The list of a header has "functions": the symbols that a program compiled with it calls, and how many
parameters each takes.
"""

import argparse
import ctypes
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
_FUNCTION = re.compile(r"\b(cu[A-Z]\w*)\s*\(([^()]*)\)")


def list_of(module: ModuleType, name: str, version: str) -> dict[str, Any]:
    """The member list of an imported module."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    values = [key for key, value in public.items() if not inspect.isclass(value) and not inspect.ismodule(value)]
    classes: dict[str, str] = {}
    for key, value in public.items():
        if inspect.isclass(value) and not value.__module__.startswith(("builtins", "numpy", "typing")):
            _add_class(classes, key, value)
    return {"module": name, "version": version, "names": " ".join(sorted(values)), "classes": classes}


def _add_class(classes: dict[str, str], path: str, kind: type) -> None:
    python = {name for base in kind.__mro__ if base.__module__ == "builtins" for name in dir(base)}  # int's and such
    members = [name for name in dir(kind) if not name.startswith("_") and name not in python]
    classes[path] = " ".join(sorted(members))
    for name in members:
        if inspect.isclass(value := getattr(kind, name)):
            _add_class(classes, f"{path}.{name}", value)


def write(found: dict[str, Any]) -> Path:
    """Write the list beside this file as MODULE-VERSION.json."""
    path = FOLDER / f"{found['module'].split('.')[0].replace('_', '-')}-{found['version']}.json"
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")
    return path


def from_module(name: str, public_name: str | None = None) -> None:
    """Import `name` in this process and write its list, as `public_name` where users know it by another."""
    module = importlib.import_module(name)
    package = importlib.import_module(name.split(".")[0])
    version = getattr(package, "__version__", None) or package.VERSION_TEXT
    write(list_of(module, public_name or name, version))


def from_wheel(wheel: Path) -> None:
    """Unpack a wheel of TensorRT's bindings, put stand-ins for its libraries beside it and list it in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        (extension,) = Path(folder).glob("tensorrt_bindings/tensorrt*.so")
        needed = re.findall(r"NEEDED.*\[(libnv\S+)\]", _run("readelf", "-d", str(extension)))
        symbols = [line.split()[-1] for line in _run("nm", "-D", "--undefined-only", str(extension)).splitlines()]
        here = ctypes.CDLL(None)  # what Python and the C library bring need not be made up
        missing = [symbol for symbol in symbols if "@" not in symbol and not hasattr(here, symbol)]
        for library in needed:
            stand_in(Path(folder), library, missing)
        paths = {"LD_LIBRARY_PATH": folder, "PYTHONPATH": folder}
        command = [sys.executable, __file__, "module", "tensorrt_bindings", "--as", "tensorrt"]
        subprocess.run(command, env=os.environ | paths, check=True)


def from_header(header: Path) -> None:
    """The driver's functions by the names that they are exported with: the header renames many to NAME_v2 and later."""
    macro = re.search(r"#define CUDA_VERSION (\d+)", header.read_text())
    assert macro is not None, f"{header} does not say its version"
    version = f"{int(macro[1]) // 1000}.{int(macro[1]) % 1000 // 10}"
    write({"module": "cuda-driver", "version": version, "functions": _functions(header)})


def _functions(header: Path, *flags: str) -> dict[str, int]:
    """What the header and its neighbour cudaProfiler.h declare, after the preprocessor; with how many parameters."""
    profiler = str(header.with_name("cudaProfiler.h"))
    text = _run("gcc", "-E", "-P", "-xc", f"-I{header.parent}", *flags, "-include", str(header), profiler)
    return {
        name: 0 if types.strip() in ("", "void") else types.count(",") + 1 for name, types in _FUNCTION.findall(text)
    }


def driver(header: Path, folder: Path) -> None:
    """A stand-in for libcuda with every function of the header, the outdated ones included."""
    folder.mkdir(parents=True, exist_ok=True)
    stand_in(folder, "libcuda.so.1", sorted(_functions(header, "-D__CUDA_API_VERSION_INTERNAL")))
    (folder / "libcuda.so").unlink(missing_ok=True)
    (folder / "libcuda.so").symlink_to("libcuda.so.1")


def stand_in(folder: Path, library: str, symbols: list[str]) -> None:
    """A shared library whose functions all return 100 (CUDA's "no device"; null would be as good for TensorRT)."""
    source = "".join(f"int {symbol}(void) {{ return 100; }}\n" for symbol in symbols)
    command = ["gcc", "-shared", "-fPIC", "-w", "-xc", "-", f"-Wl,-soname,{library}", "-o", str(folder / library)]
    subprocess.run(command, input=source, text=True, check=True)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("wheel").add_argument("wheels", nargs="+", type=Path)
    module = kinds.add_parser("module")
    module.add_argument("name")
    module.add_argument("--as", dest="public_name")
    kinds.add_parser("header").add_argument("header", type=Path)
    libcuda = kinds.add_parser("driver")
    libcuda.add_argument("header", type=Path)
    libcuda.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.kind == "wheel":
        for wheel in given.wheels:
            from_wheel(wheel)
    elif given.kind == "module":
        from_module(given.name, given.public_name)
    elif given.kind == "header":
        from_header(given.header)
    else:
        driver(given.header, given.folder)


if __name__ == "__main__":
    main()
