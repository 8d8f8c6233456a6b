"""The options with which `run` and `compare` open a package's engines."""

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Union

from runtime.schedule import DEFAULT_CONTEXTS, DENSITIES
from splitmerge.options import positive_integer

if TYPE_CHECKING:
    from runtime.executor import Executor
    from runtime.shards import FrameShards
    from splitmerge.package import Package

__all__ = ["add_engine_arguments", "open_executor"]

AUTO = "auto"


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --backend, --precision, --contexts, --chunk, --devices, --shard, --density and --in-flight."""
    group = parser.add_argument_group("engine")
    group.add_argument("--backend", default="auto", help="auto, or one of those that `splitmerge doctor` lists")
    group.add_argument("--precision", default="fp32", help="one of the package's precisions")
    group.add_argument(
        "--contexts",
        type=_contexts,
        metavar="N",
        help=f"executions of the trunk at the same time on each device ({DEFAULT_CONTEXTS}, on a CPU what build found "
        "fastest), or auto: as many as fit and measure faster",
    )
    group.add_argument(
        "--chunk",
        type=positive_integer,
        metavar="N",
        help="split batches in one execution (1, on a CPU what build found fastest)",
    )
    group.add_argument(
        "--devices", type=_devices, default=(0,), metavar="N,N", help="GPUs by number, as 0,1; unused on a CPU"
    )
    group.add_argument(
        "--shard",
        choices=("split-batches", "frames"),
        default="split-batches",
        help="what several devices share out: the split batches of each frame (low latency) or whole frames",
    )
    group.add_argument(
        "--density",
        choices=tuple(DENSITIES),
        default="1",
        help="share of the pixels that are computed; the others take the nearest one's label",
    )
    group.add_argument(
        "--in-flight",
        type=positive_integer,
        metavar="N",
        help="frames at work at the same time, each with contexts of its own (2 where several devices share split "
        "batches, so that none waits for the end of a frame; otherwise 1)",
    )


def open_executor(package: "Package", arguments: argparse.Namespace) -> Union["Executor", "FrameShards"]:
    """The package's executor as `add_engine_arguments`' options ask for it, or one for each device."""
    segmenter = _open(package, arguments)
    print(f"backend: {segmenter.facts['backend']} ({segmenter.why})")
    return segmenter


def _open(package: "Package", arguments: argparse.Namespace) -> Union["Executor", "FrameShards"]:
    from runtime.shards import FrameShards

    if arguments.shard != "frames" or len(arguments.devices) == 1:
        return _executor(package, arguments, arguments.devices)
    with ExitStack() as undo:
        executors = []
        for device in arguments.devices:
            executors.append(undo.enter_context(_executor(package, arguments, (device,))))
        undo.pop_all()
    return FrameShards(executors)


def _executor(package: "Package", arguments: argparse.Namespace, devices: tuple[int, ...]) -> "Executor":
    from runtime.cpu_form import Sharing, remembered
    from runtime.executor import Executor
    from runtime.tuning import tune_contexts

    measured = remembered(package) if _is_tuned(package, arguments, devices) else None
    sharing = measured or Sharing()
    contexts, chunk = arguments.contexts or sharing.contexts, arguments.chunk or sharing.chunk

    def make(contexts: int) -> Executor:
        return Executor(
            package,
            contexts=contexts,
            chunk=chunk,
            backend=arguments.backend,
            precision=arguments.precision,
            threads=sharing.threads,
            devices=devices,
            in_flight=arguments.in_flight or (2 if len(devices) > 1 else 1),
            density=arguments.density,
            roomy=sharing.roomy,
        )

    if contexts != AUTO:
        return make(contexts)
    tuned = tune_contexts(make)
    print(f"contexts: {tuned}")
    return tuned.executor


def _is_tuned(package: "Package", arguments: argparse.Namespace, devices: tuple[int, ...]) -> bool:
    """Whether the options leave it to what was measured on this CPU; parts of a frame are asked for one by one."""
    from engines.backends import choose_backend_to_run

    if arguments.contexts or arguments.chunk or arguments.in_flight or len(devices) > 1:
        return False
    if arguments.density != "1" or getattr(arguments, "deadline_ms", 0):
        return False
    backend, _ = choose_backend_to_run(package, arguments.backend, arguments.precision, devices)
    return backend == "onnxruntime" and arguments.precision == "fp32"


def _contexts(text: str) -> int | str:
    return AUTO if text == AUTO else positive_integer(text)


def _devices(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} names no devices: give numbers with commas, as 0,1")
    devices = tuple(int(number) for number in numbers)
    if len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"{text!r} names a device twice: name each once")
    return devices
