"""`splitmerge bench`: peak memory and time, whole graph against streamed split batches."""

import argparse

from splitmerge.errors import InputError

HELP = "Measure peak memory and time: the whole graph against streamed split batches."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    try:
        from benchmarks import streaming
    except ModuleNotFoundError:  # installed without the checkout: `run` says so
        return
    streaming.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        from benchmarks import streaming
    except ModuleNotFoundError:
        raise InputError("The benchmarks are part of the checkout: run `make bench` there.") from None
    return streaming.run(arguments)
