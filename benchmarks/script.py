"""What every benchmark that is also a verb does as a script of its own."""

import argparse
import sys
from collections.abc import Callable

from splitmerge.errors import SplitmergeError

__all__ = ["run_script"]


def run_script(
    name: str,
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
) -> int:
    """Parse the command line and run; the exit code. An error of the project's is one line that begins with `name`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except SplitmergeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
