"""The processes of one training: one alone, or as many as torchrun started, each on a GPU of its own or on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from splitmerge.errors import InputError

__all__ = ["ALONE", "Processes", "device_named", "joined"]


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`, and computes on `device`."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def part(self, length: int) -> slice:
        """This process's share of so many things, which divide by the number of processes."""
        size = length // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of each element over all processes, on the CPU."""
        if self.count == 1:
            return values
        moved = values.to(self.device)
        dist.all_reduce(moved)
        return moved.cpu()

    def total(self, value: float) -> float:
        """The sum of one number over all processes."""
        return float(self.sum(torch.tensor(value, dtype=torch.float64)))


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: str, batch: int, accumulate: int) -> Iterator[Processes]:
    """The processes that torchrun started, joined while the block lasts; this one alone where it started none.

    `device` is auto (a GPU where there is one), cpu or cuda. Raises InputError for a device that is not there and for a
    batch that does not divide among processes and parts.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = device_named(device, int(os.environ.get("LOCAL_RANK", "0")))
    if batch % (count * accumulate):
        raise InputError(
            f"A batch of {batch} does not divide among {count} processes of {accumulate} parts each: choose a --batch "
            f"that is a multiple of {count * accumulate}."
        )
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    theirs = dist.is_initialized()  # a caller's own group is used and left alone
    if not theirs:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, chosen)
    finally:
        if not theirs:
            dist.destroy_process_group()


def device_named(name: str, local_rank: int = 0) -> torch.device:
    """auto (a GPU where there is one), cpu or cuda. Raises InputError for one that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"There is no device {name!r}: choose auto, cpu or cuda.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"There is no GPU number {local_rank} for PyTorch, which sees {torch.cuda.device_count()}: use --device "
            "cpu, or start as many processes as there are GPUs."
        )
    return torch.device("cuda", local_rank)
