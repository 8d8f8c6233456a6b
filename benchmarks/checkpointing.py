"""What checkpointing saves and costs in training, next to the Ladder-DenseNet paper's Table 11.

    python -m benchmarks.checkpointing --json build/checkpointing.json

Memory: a training step of ldn121-32-4 on 6 crops of 768x768, the table's own, is followed without computing
(fake tensors), and the bytes of all tensors that are alive are added up; the row tells the most there are at a
time, weights and gradients included. The paper's are a GPU allocator's. Time: steps on real, smaller crops on this
machine's processor, the plans taking turns, the median of each.

On idle cores the rates are the paper's within 0.07: `full` ran at 0.77 of the plain step's, in the paper at
0.81. It takes 17 % more multiply-adds (34.5 to 29.6 billion on 2 crops of 256x256), which would be 0.86, since the last
convolution of a segment is not computed again; the rest is batch norms, ReLUs and concatenations.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from tqdm import tqdm

from benchmarks.machine import machine
from splitmerge.errors import SplitmergeError
from splitmerge.files import write_json
from training.models import create_model
from training.networks.base import SegmentationNet
from training.recompute import PLANS, set_checkpointing

__all__ = ["TABLE_11", "peak_bytes", "rows"]

TABLE_11: Mapping[str, tuple[int, float]] = {
    "off": (11265, 11.3),
    "3x3": (10107, 10.5),
    "cat-1x1": (6620, 10.4),
    "cat-1x1-and-3x3": (5552, 9.7),
    "blocks": (3902, 8.4),
    "units": (3620, 10.1),
    "full": (2106, 9.2),
}
"""MB at batch 6 and frames per second, on a Titan Xp."""


def peak_bytes(name: str, plan: str, batch: int, size: int, width: int = 64) -> int:
    """Bytes of all tensors at the worst moment of a training step on crops of `size` squared; nothing is computed."""
    with FakeTensorMode():
        model, images, labels = _prepared(name, plan, batch, size, width)
        tracker = MemTracker()
        with tracker:
            _step(model, images, labels)
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def rows(
    name: str, plans: Sequence[str], peak_at: tuple[int, int], timed_at: tuple[int, int], rounds: int
) -> Iterator[dict[str, Any]]:
    """A row per plan, with its shares of the first one's; `..._at` are (batch, size)."""
    seconds: dict[str, list[float]] = {plan: [] for plan in plans}
    model, images, labels = _prepared(name, "off", *timed_at)
    _step(model, images, labels)
    for _ in tqdm(range(rounds), desc="steps of each plan", disable=None):
        for plan, times in seconds.items():
            set_checkpointing(model, plan)
            started = time.perf_counter()
            _step(model, images, labels)
            times.append(time.perf_counter() - started)
    before = 0
    for plan, times in seconds.items():
        peak, step = peak_bytes(name, plan, *peak_at), statistics.median(times)
        before = before or peak
        megabytes, rate = TABLE_11[plan]
        yield {
            "plan": plan,
            "peak_mb": round(peak / 2**20),
            "peak_share": round(peak / before, 3),
            "step_s": round(step, 3),
            "rate_share": round(statistics.median(seconds[plans[0]]) / step, 3),
            "paper_mb": megabytes,
            "paper_share": round(megabytes / TABLE_11["off"][0], 3),
            "paper_rate_share": round(rate / TABLE_11["off"][1], 3),
        }


def _prepared(name: str, plan: str, batch: int, size: int, width: int = 64) -> tuple[SegmentationNet, Tensor, Tensor]:
    torch.manual_seed(0)
    model = create_model(name, width=width).train()
    set_checkpointing(model, plan)
    return model, torch.randn(batch, 3, size, size), torch.zeros(batch, size, size, dtype=torch.int64)


def _step(model: SegmentationNet, images: Tensor, labels: Tensor) -> None:
    model.zero_grad()
    model.loss(images, labels).backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it without types


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ldn121-32-4")
    parser.add_argument("--plans", nargs="+", default=list(PLANS), choices=PLANS, help="others are shares of the first")
    parser.add_argument("--batch", type=int, default=6, help="crops of the step whose memory is counted")
    parser.add_argument("--size", type=int, default=768, help="their height and width")
    parser.add_argument("--timed-batch", type=int, default=2, help="crops of the steps that are timed")
    parser.add_argument("--timed-size", type=int, default=192, help="their height and width")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each plan")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    peak_at, timed_at = (arguments.batch, arguments.size), (arguments.timed_batch, arguments.timed_size)
    print(f"{'plan':<16} {'peak MB':>8} {'share':>6} {'paper':>6} {'step s':>7} {'rate':>6} {'paper':>6}")
    found = []
    try:
        for row in rows(arguments.model, arguments.plans, peak_at, timed_at, arguments.rounds):
            found.append(row)
            print(
                f"{row['plan']:<16} {row['peak_mb']:>8} {row['peak_share']:>6.3f} {row['paper_share']:>6.3f} "
                f"{row['step_s']:>7.2f} {row['rate_share']:>6.3f} {row['paper_rate_share']:>6.3f}"
            )
    except SplitmergeError as error:
        print(f"checkpointing: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        of = {"model": arguments.model, "peak_at": peak_at, "timed_at": timed_at, "rounds": arguments.rounds}
        write_json(arguments.json, {**machine(), **of, "rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
