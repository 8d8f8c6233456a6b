"""The command line, `python -m splitmerge VERB`: one module of `splitmerge.commands` per verb.

A verb's module has `HELP`, `add_arguments(parser)` and `run(arguments) -> exit code`. It imports its stage inside
`run`, so that the help is quick and `splitmerge run` needs no PyTorch.
"""

import argparse
import importlib
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import splitmerge.commands
from splitmerge import __version__
from splitmerge.errors import SplitmergeError

__all__ = ["main", "verbs"]


def verbs() -> list[str]:
    """The verbs there are, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(splitmerge.commands.__path__))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Exit codes: 0 done, 1 the thing asked about is not so, 2 bad input or usage, 130 interrupted, 141 nobody
    reads the output, 143 terminated.
    """
    arguments = _parser().parse_args(argv)
    try:
        with _termination_raised():
            code: int = arguments.run(arguments)
        return code
    except SplitmergeError as error:
        print(f"splitmerge: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has had enough
        sys.stdout = None  # or the interpreter would try to flush it once more
        return 141
    except OSError as error:
        print(f"splitmerge: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("splitmerge: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print("splitmerge: terminated", file=sys.stderr)
        return 143


class _Terminated(SystemExit):
    """SIGTERM came. As an exception it unwinds the stack as Ctrl-C does, so that partial files go."""


@contextmanager
def _termination_raised() -> Iterator[None]:
    """Raise _Terminated where SIGTERM comes inside the block. A second one ends the process at once."""

    def raise_it(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated(143)

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"The system refused to go on ({reason}): look at the disk's room and at what may be read and written."
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    return f"{name} cannot be read or written ({reason}): make room on its disk, permit it, or name another."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="splitmerge",
        description="Full-resolution semantic segmentation with Split-Merge Pooling, from PyTorch to engines on video.",
    )
    parser.add_argument("--version", action="version", version=f"splitmerge {__version__}")
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for verb in verbs():
        module = importlib.import_module(f"splitmerge.commands.{verb}")
        sub = subparsers.add_parser(
            verb,
            help=module.HELP,
            description=module.HELP,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser
