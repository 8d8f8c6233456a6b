"""The options with which `run` and `compare` open a package's engines."""

import argparse
from typing import TYPE_CHECKING

from runtime.schedule import DEFAULT_CONTEXTS
from splitmerge.errors import InputError
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from runtime.executor import Executor
    from splitmerge.package import Package

__all__ = ["add_engine_arguments", "engine_facts", "open_executor"]


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --backend, --precision, --contexts, --chunk and --devices."""
    group = parser.add_argument_group("engine")
    group.add_argument("--backend", default="auto", help="auto, or one of those that `splitmerge doctor` lists")
    group.add_argument("--precision", default="fp32", help="one of the package's precisions")
    group.add_argument(
        "--contexts", type=positive_integer, default=DEFAULT_CONTEXTS, help="executions of the trunk at the same time"
    )
    group.add_argument("--chunk", type=positive_integer, default=1, help="split batches in one execution")
    group.add_argument("--devices", type=_devices, default=(0,), help="GPUs by number, as 0,1; unused on a CPU")


def open_executor(package: "Package", arguments: argparse.Namespace) -> "Executor":
    """The package's executor as `add_engine_arguments`' options ask for it."""
    from runtime.executor import Executor

    if arguments.devices != (0,):
        named = ",".join(map(str, arguments.devices))
        raise InputError(f"--devices {named} names GPUs, and engines run on the CPU so far: leave the option out.")
    return Executor(
        package,
        contexts=arguments.contexts,
        chunk=arguments.chunk,
        backend=arguments.backend,
        precision=arguments.precision,
    )


def engine_facts(arguments: argparse.Namespace) -> dict[str, object]:
    """What the engine options came to, for JSON: `auto` is resolved to the backend that it means here."""
    from engines.backends import choose_backend

    facts = {name: getattr(arguments, name) for name in ("precision", "contexts", "chunk", "devices")}
    return {"backend": choose_backend(arguments.backend)[0], **facts}


def _devices(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} names no devices: give numbers with commas, as 0,1")
    return tuple(int(number) for number in numbers)
