"""The command line, `python -m splitmerge VERB`: one module of `splitmerge.commands` per verb.

A verb's module has `HELP`, `add_arguments(parser)` and `run(arguments) -> exit code`. It imports its stage inside
`run`, so that the help is quick and `splitmerge run` needs no PyTorch.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import splitmerge.commands
from splitmerge import __version__
from splitmerge.errors import SplitmergeError
from splitmerge.interrupts import Terminated, termination_raised

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
    arguments.words = list(sys.argv[1:] if argv is None else argv)
    try:
        with termination_raised():
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
    except Terminated:
        print("splitmerge: terminated", file=sys.stderr)
        return 143


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
