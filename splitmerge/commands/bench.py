"""`splitmerge bench`: peak memory and time, whole graph against streamed split batches."""

import argparse

from benchmarks import streaming

HELP = "Measure peak memory and time: the whole graph against streamed split batches."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    streaming.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    return streaming.run(arguments)
