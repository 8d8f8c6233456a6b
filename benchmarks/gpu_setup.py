"""Install, in this environment, what tests and benchmarks on an NVIDIA GPU need besides the rest.

    python -m benchmarks.gpu_setup

looks for PyTorch with CUDA, pycuda (compiled here, so it needs the CUDA toolkit's nvcc and a C++ compiler) and
TensorRT, and installs those that are missing. What cannot be had is said and left out: the tests and rows that need it
will say so again. Exit code 2 where there is no GPU. Two variables choose other builds:

    TORCH_INDEX   the package index of another PyTorch build, for drivers that are older than the usual build's CUDA
    TENSORRT      what to install for TensorRT, such as tensorrt-cu12==10.16.1.11; `tensorrt-cu` and the driver's CUDA
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.machine import Gpu, ask_driver

__all__ = ["Step", "install", "main", "steps"]

ROOT = Path(__file__).parents[1]
TOOLKIT = Path("/usr/local/cuda/bin")


@dataclass(frozen=True)
class Step:
    """`check` is Python that prints a version where the thing works and fails where it does not.

    `arguments` are pip's, `advice` is what may help where they do not.
    """

    name: str
    check: str
    arguments: tuple[str, ...]
    advice: str


def steps(gpu: Gpu, variables: Mapping[str, str]) -> list[Step]:
    """What is needed, in order."""
    index = variables.get("TORCH_INDEX", "")
    cuda = gpu.driver.split(".")[0]
    return [
        Step(
            "PyTorch with CUDA",
            "import torch; assert torch.version.cuda, f'{torch.__version__} is a build without CUDA'; "
            f"assert torch.cuda.is_available(), f'{{torch.__version__}} cannot use the driver for CUDA {gpu.driver}'; "
            "print(torch.__version__, 'for CUDA', torch.version.cuda)",
            ("--force-reinstall", *(("--index-url", index) if index else ()), "torch"),
            f"the driver is for CUDA {gpu.driver}: set TORCH_INDEX to the index of a PyTorch build for that or less",
        ),
        Step(
            "pycuda",
            "import importlib.metadata, pycuda.driver; print(importlib.metadata.version('pycuda'))",
            ("pycuda",),
            "it is compiled here: install the CUDA toolkit (nvcc must be on PATH) and a C++ compiler",
        ),
        Step(
            "TensorRT",
            "import tensorrt; print(tensorrt.__version__)",
            (variables.get("TENSORRT") or f"tensorrt-cu{cuda}",),
            "its libraries come from NVIDIA's own package index, which must be reachable; TENSORRT names another build",
        ),
    ]


def install(step: Step, run: Callable[[list[str]], tuple[int, str]]) -> str:
    """One line on what is there now. `run` takes Python's arguments and gives its exit code and output."""
    code, words = run(["-c", step.check])
    if code == 0:
        return f"{step.name}: {words.strip()}"
    print(f"{step.name}: installing {' '.join(step.arguments)} ...", flush=True)
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    failed, output = run(["-m", "pip", "install", "--quiet", *constraints, *step.arguments])
    code, words = run(["-c", step.check])
    if code == 0:
        return f"{step.name}: {words.strip()}"
    return f"{step.name}: cannot be had ({_last(output if failed else words)}); {step.advice}"


def main() -> int:
    gpus, problems = ask_driver()
    if not gpus:
        print(f"gpu_setup: There is no NVIDIA GPU to test here ({'; '.join(problems)}).", file=sys.stderr)
        return 2
    print(f"GPU: {', '.join(map(str, gpus))}; driver for CUDA {gpus[0].driver}")
    environment = dict(os.environ)
    if shutil.which("nvcc") is None and TOOLKIT.is_dir():
        environment["PATH"] = f"{environment.get('PATH', '')}{os.pathsep}{TOOLKIT}"

    def run(arguments: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr

    for line in [install(step, run) for step in steps(gpus[0], os.environ)]:
        print(line, flush=True)
    return 0


def _last(output: str) -> str:
    """The line that says most: pip's last error, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "error:"))]
    return (errors or lines or ["it does not say why"])[-1][:300]


if __name__ == "__main__":
    sys.exit(main())
