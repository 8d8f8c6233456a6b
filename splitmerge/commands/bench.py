"""`splitmerge bench`: this project beside its peers, or one of the other measurements, by option."""

import argparse
import importlib
from dataclasses import dataclass
from typing import Any

from splitmerge.errors import InputError

HELP = (
    "Measure this project beside PyTorch, ONNX Runtime and OpenVINO; or, with --streaming, whole graphs against "
    "streamed split batches; with --profile, where a package's time goes; with --backend, a GPU."
)


@dataclass(frozen=True)
class _Mode:
    """A measurement: the module that has its options, and the one that runs it, which may need more to be imported."""

    title: str
    options: str
    runs: str
    chosen_by: str = ""


_MODES = {
    "peers": _Mode("beside its peers, on the CPU", "benchmarks.peers.options", "benchmarks.peers.comparison"),
    "streaming": _Mode("whole graph against streamed", "benchmarks.streaming", "benchmarks.streaming", "--streaming"),
    "profile": _Mode("where time goes", "benchmarks.profiling.options", "benchmarks.profiling.report", "--profile"),
    "gpu": _Mode("on a GPU", "benchmarks.gpu_options", "benchmarks.gpu", "--backend"),
}
_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "torch")


class _Options(argparse.ArgumentParser):
    """Collects a measurement's options with their own defaults, and puts those into a parser that it shares."""

    def __init__(self, shared: argparse._ArgumentGroup | None = None, known: set[str] | None = None) -> None:
        super().__init__(add_help=False)
        self._shared, self._known = shared, known if known is not None else set()

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        action = super().add_argument(*names, **settings)
        if self._shared is not None and action.dest not in self._known:
            self._known.add(action.dest)
            words = f"{settings.get('help', '')} (default: {_words(settings.get('default'))})"
            # absent where it is not given: the measurement that is chosen has a default of its own
            self._shared.add_argument(*names, **{**settings, "default": argparse.SUPPRESS, "help": words})
        elif self._shared is not None:
            before = self._shared.description or "also, with defaults of its own:"
            self._shared.description = f"{before} {names[0]}"
        return action


def _words(default: object) -> str:
    """A default as it would be given on the command line."""
    if isinstance(default, tuple):
        return "x".join(map(str, default))
    return " ".join(map(_words, default)) if isinstance(default, list) else str(default)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streaming", action="store_true", help="measure whole graphs against streamed split batches")
    parser.add_argument("--profile", metavar="PACKAGE", default=argparse.SUPPRESS, help="measure where its time goes")
    parser.add_argument("--backend", choices=_BACKENDS, default=argparse.SUPPRESS, help="measure on an NVIDIA GPU")
    known = {"help", "streaming", "profile", "backend"}
    for mode in _MODES.values():
        try:
            module = importlib.import_module(mode.options)
        except ModuleNotFoundError:  # installed without the checkout: `run` says so
            return
        module.add_arguments(_Options(parser.add_argument_group(mode.title), known))


def run(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(arguments).items() if name not in ("run", "words", "streaming")}
    chosen = [name for name in ("profile", "backend") if name in given] + ["streaming"] * arguments.streaming
    if len(chosen) > 1:
        raise InputError(f"--{' and --'.join(chosen)} are two measurements: choose one of them.")
    mode = _MODES["gpu" if chosen == ["backend"] else chosen[0] if chosen else "peers"]
    try:
        options = importlib.import_module(mode.options)
    except ModuleNotFoundError:
        raise InputError("The benchmarks are part of the checkout: run `make bench` there.") from None
    own = _Options()
    options.add_arguments(own)
    settings = own.parse_args([])
    for name, value in given.items():
        if not hasattr(settings, name) and name not in chosen:
            raise InputError(
                f"--{name.replace('_', '-')} is not for `splitmerge bench{f' {mode.chosen_by}' if chosen else ''}`: "
                "see `splitmerge bench --help` for which options belong together."
            )
        setattr(settings, name, value)
    settings.words = arguments.words
    try:
        module = importlib.import_module(mode.runs)
    except ImportError as error:
        raise InputError(
            f"This measurement needs a package that is not installed ({error}): run `make setup`, or leave it."
        ) from None
    code: int = module.run(settings)
    return code
