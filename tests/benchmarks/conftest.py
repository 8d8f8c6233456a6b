"""Benchmarks of GPUs run on the emulator."""

from emulator.fixture import make_emulator

__all__ = ["make_emulator"]
