"""A training step of a shrink-trained Split-Merge Pooling network against the strided FCN32s step: time and memory.

    python -m benchmarks.step_cost --json build/step_cost.json

Same ResNet, batch, crop and optimiser (AdamW); forward, backward and optimiser step. The rows of a network are

    fcn32s             its loss on logits upsampled to every pixel, as it is trained
    fcn32s, stride 32  its loss at its own stride, against the label in the middle of each window
    smp, stride 32     one pixel of each 32x32 window, all levels shrunk: the SMP paper's form (section 3.2)
    smp, stride 16     one of each 16x16, the last level split: this project's default

each also through torch.compile with --compile. Steps take turns in one process, and a row tells the medians; offsets
are drawn anew in every step. Shares are of `fcn32s, stride 32`, what a shrink-trained step should cost: 0.9 to 1.1.

Memory: the step is followed without computing (fake tensors), and the bytes of all tensors that are alive are added up,
weights, gradients and the optimiser's state among them; the row tells the most there are at a time, after a first step
has made that state. Compiled steps are timed alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from tqdm import tqdm

from benchmarks.machine import machine
from splitmerge.errors import InputError, SplitmergeError
from splitmerge.files import check_outputs, write_json
from splitmerge.options import height_and_width, positive_integer
from training.learning.allocator import keep_freed_memory
from training.learning.compiled import check_compiler, compiled, failures_told
from training.models import create_model
from training.networks.base import SegmentationNet, cross_entropy
from training.networks.fcn import FCN32s
from training.networks.smp import SMP
from training.reduction import STRIDE, SplitMerge, Strided

__all__ = ["FORMS", "Form", "peak_bytes", "rows", "table"]

CLASSES = 19


@dataclass(frozen=True)
class Form:
    """A way to take a step: the network, the stride that its loss is taken at, and whether it is compiled."""

    network: str
    stride: int
    compiled: bool = False

    @property
    def title(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return self.network + stride + (", compiled" if self.compiled else "")


REFERENCE = Form("fcn32s", STRIDE)
FORMS = (Form("fcn32s", 1), REFERENCE, Form("smp", STRIDE), Form("smp", STRIDE // 2))

Size = tuple[int, int]


class Step:
    """A network, its optimiser and a batch; `take()` is a step."""

    def __init__(self, form: Form, depth: int, width: int, batch: int, crop: Size) -> None:
        torch.manual_seed(0)
        prefix = "fcn32s-" if form.network == "fcn32s" else form.network
        self.form, self.model = form, create_model(f"{prefix}{depth}", CLASSES, width).train()
        self.images = torch.randn(batch, 3, *crop).to(memory_format=torch.channels_last)
        self.labels = torch.randint(CLASSES, (batch, *crop))
        self.optimiser = torch.optim.AdamW(self.model.parameters(), foreach=False)
        self.draws = torch.Generator().manual_seed(0)
        self.loss: torch.nn.Module = _Loss(self.model, form.stride)
        if form.compiled:
            self.loss = compiled(self.model, self.loss)

    def take(self, reduction: SplitMerge | None = None) -> None:
        """Forward, backward, optimiser. Where no `reduction` is given, Split-Merge Pooling's offsets are drawn."""
        if isinstance(self.model, SMP) and reduction is None:
            reduction = SplitMerge.sampled(self.draws, self.form.stride)
        self.optimiser.zero_grad()
        with failures_told():
            self.loss(self.images, self.labels, reduction).backward()
        self.optimiser.step()


class _Loss(torch.nn.Module):
    def __init__(self, model: SegmentationNet, stride: int) -> None:
        super().__init__()
        self.model, self.stride = model, stride

    def forward(self, images: Tensor, labels: Tensor, reduction: SplitMerge | None) -> Tensor:
        if isinstance(self.model, SMP):
            logits, (row, column), stride = self.model.sample(images, reduction)
            return cross_entropy(logits, labels[:, row::stride, column::stride])
        if self.stride == 1:
            return self.model.loss(images, labels)
        assert isinstance(self.model, FCN32s)
        logits = self.model.classifier(self.model.features(images, Strided())[-1])
        middle = self.stride // 2
        return cross_entropy(logits, labels[:, middle :: self.stride, middle :: self.stride])


@cache
def peak_bytes(form: Form, depth: int, width: int, batch: int, crop: Size) -> int:
    """Bytes of all tensors at the worst moment of a second training step; nothing is computed."""
    with FakeTensorMode():
        step = Step(form, depth, width, batch, crop)
        reduction = SplitMerge.at(1, 1, form.stride) if isinstance(step.model, SMP) else None
        step.take(reduction)
        tracker = MemTracker()
        tracker.track_external(step.model, step.optimiser, step.images, step.labels)
        with tracker:
            step.take(reduction)
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def rows(
    depth: int,
    width: int,
    batch: int,
    crop: Size,
    rounds: int,
    with_compiled: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, Any]]:
    """A row per form of one ResNet. Raises InputError where there is no compiler for those that are compiled."""
    forms = [*FORMS, *(Form(form.network, form.stride, True) for form in FORMS if with_compiled)]
    steps = [Step(form, depth, width, batch, crop) for form in forms]
    for step in steps:
        step.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as trainings have it
    for step in steps:  # the first ones allocate, and compile: each form of padding a program
        for offset in ((0, 0), (STRIDE - 1, STRIDE - 1), (0, 1), (1, 0)):
            step.take(SplitMerge.at(offset[0], offset[1], step.form.stride) if isinstance(step.model, SMP) else None)
    seconds: dict[Form, list[float]] = {form: [] for form in forms}
    for _ in tqdm(range(rounds), desc=f"ResNet-{depth}, width {width}", unit="round", disable=None):
        for step in steps:
            began = clock()
            step.take()
            seconds[step.form].append(clock() - began)
    reference = statistics.median(seconds[REFERENCE])
    least = peak_bytes(REFERENCE, depth, width, batch, crop)
    for form in forms:
        median = statistics.median(seconds[form])
        row: dict[str, Any] = {"depth": depth, "width": width, "form": form.title, "compiled": form.compiled}
        row |= {"step_ms": round(1000 * median, 2), "time_share": round(median / reference, 3)}
        row |= {"fastest_ms": round(1000 * min(seconds[form]), 2), "slowest_ms": round(1000 * max(seconds[form]), 2)}
        if not form.compiled:
            peak = peak_bytes(form, depth, width, batch, crop)
            row |= {"peak_mb": round(peak / 2**20, 1), "memory_share": round(peak / least, 3)}
        yield row


def table(found: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| ResNet, width | step | time | share | peak memory | share |", "|---|---|---:|---:|---:|---:|"]
    for row in found:
        memory = f"{row['peak_mb']:,.0f} MB | {row['memory_share']:.2f}" if "peak_mb" in row else "- | -"
        time_of = f"{row['step_ms']:,.1f} ms | {row['time_share']:.2f}"
        lines.append(f"| {row['depth']}, {row['width']} | {row['form']} | {time_of} | {memory} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=positive_integer, nargs="+", default=[18, 34])
    parser.add_argument("--widths", type=positive_integer, nargs="+", default=[16, 64])
    parser.add_argument("--batch", type=positive_integer, default=8)
    parser.add_argument("--crop", type=height_and_width, default=(128, 256), help="HxW, multiples of 32")
    parser.add_argument("--rounds", type=positive_integer, default=15, help="timed steps of each form")
    parser.add_argument("--threads", type=positive_integer, help="of PyTorch, as many as it likes where left out")
    parser.add_argument("--compile", action="store_true", help="also each form through torch.compile (minutes each)")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    keep_freed_memory()  # as a training does
    try:
        check_outputs((arguments.json,))
        if any(side % STRIDE for side in arguments.crop):
            raise InputError(f"--crop {arguments.crop[0]}x{arguments.crop[1]} must be a multiple of {STRIDE}.")
        if arguments.compile:
            check_compiler(torch.device("cpu"))
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        for depth in arguments.depths:
            for width in arguments.widths:
                of = (depth, width, arguments.batch, arguments.crop, arguments.rounds, arguments.compile)
                found.extend(rows(*of))
    except SplitmergeError as error:
        print(f"step_cost: {error}", file=sys.stderr)
        return error.exit_code
    print(table(found))
    if arguments.json:
        of_all = {"batch": arguments.batch, "crop": arguments.crop, "rounds": arguments.rounds}
        write_json(arguments.json, {**machine(), **of_all, "threads": torch.get_num_threads(), "rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
