"""This project beside PyTorch, ONNX Runtime and OpenVINO on the CPU, in one run.

    splitmerge bench --networks smp18 --widths 16 64 --sizes 128x256 256x512 --json bench.json --picture bench.png

Networks have seeded random weights. Each contestant has a process of its own, and all of them do the same frame in
turn, round by round, so that whatever else the machine does hits them alike; a large matrix product takes a turn, too.
Every label map is held against this project's. How it is measured: docs/benchmarks.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limits import Limits, measure_limits
from benchmarks.machine import machine
from benchmarks.networks_cost import multiply_adds
from benchmarks.peers.contestants import contestants_of
from benchmarks.peers.estimates import Estimates
from benchmarks.peers.options import add_arguments
from benchmarks.peers.packages import Case, largest_mib, prepared
from benchmarks.peers.picture import draw
from benchmarks.peers.rows import Row, rows_of
from benchmarks.peers.table import INPUTS, markdown, screen, verdict
from benchmarks.peers.turns import Entrant, Taken, take_turns
from benchmarks.script import run_script
from benchmarks.streaming import available_gib, check_machine, child
from splitmerge.errors import EngineError, InputError
from splitmerge.files import check_outputs, new_file, write_json
from training.models import network_named

__all__ = ["main", "run"]

_PROCESS_MIB = 700
"""Of a loaded contestant besides its activations: an interpreter with its libraries and a model's weights."""


def main() -> int:
    return run_script("peers", __doc__, add_arguments, run)


def run(arguments: argparse.Namespace) -> int:
    """Measure every case, the smallest first. What fails is named; 1 where a contestant has other labels."""
    check_outputs([arguments.json, arguments.picture, arguments.markdown])
    check_machine()
    cases = _cases(arguments)
    limits = measure_limits()
    print(f"{INPUTS}\n{limits}")
    estimates, done = Estimates(limits.gemm_gflops), list[tuple[Case, list[Row]]]()
    work, missing = dict[Case, int](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for index, case in enumerate(cases):
            work[case] = multiply_adds(case.network, case.width, (case.height, case.width_pixels))
            try:
                rows = _measure(case, Path(folder) / str(index), arguments, estimates, work[case])
            except EngineError as error:  # of exporting: the other cases go on
                print(f"\n{case} left out: {error}", flush=True)
                missing.append(f"{case}: {error}")
                continue
            estimates.note(case, rows)
            done.append((case, rows))
            print(screen(case, rows, work[case]), flush=True)
            if arguments.json:  # after every case, so that what was measured outlives a crash
                write_json(arguments.json, _report(arguments, limits, done, work, missing))
    if not done:
        raise EngineError("Nothing could be measured: see above for the reasons.")
    print(f"\n{markdown(done)}")
    if arguments.markdown:
        with new_file(arguments.markdown) as temporary:
            temporary.write_text(markdown(done) + "\n")
    if arguments.picture:
        draw(arguments.picture, done)
    return 1 if any(row.wrong for _, rows in done for row in rows) else 0


def _cases(arguments: argparse.Namespace) -> list[Case]:
    """By network, the smaller sizes first, which tell what the larger ones will take."""
    for name in arguments.networks:
        network_named(name)
    for height, width in arguments.sizes:
        if min(height, width) < 32:
            raise InputError(f"Frames of {height}x{width} are too small: give 32x32 or more.")
    sizes = sorted(set(arguments.sizes), key=lambda size: size[0] * size[1])
    return [Case(name, width, *size) for name in arguments.networks for width in arguments.widths for size in sizes]


def _measure(case: Case, folder: Path, arguments: argparse.Namespace, estimates: Estimates, work: int) -> list[Row]:
    words = [case.network, str(case.width), case.size, str(folder), *arguments.forms]
    found = json.loads(child(["-m", "benchmarks.peers.packages", *words], f"Exporting {case}"))
    packages = prepared(folder, found)
    contestants = contestants_of(packages.forms, packages.cut, tuple(arguments.peers), tuple(arguments.forms))
    largest, limit_gib = largest_mib(case), min(arguments.limit_gib, available_gib())
    refusals = [
        estimates.refusal(contestant, case, work, largest, limit_gib, arguments.limit_s) for contestant in contestants
    ]
    entrants = [Entrant(c, folder / c.form) for c, refusal in zip(contestants, refusals, strict=True) if not refusal]
    together_mib = sum(_PROCESS_MIB + estimates.mib(entrant.contestant, case, largest) for entrant in entrants)
    frame = folder / "frame.npy"
    np.save(frame, np.random.default_rng(0).integers(0, 256, (case.height, case.width_pixels, 3), np.uint8))
    resident = together_mib / 1024 <= limit_gib
    taken = take_turns(entrants, arguments.rounds, frame, folder, limit_gib, arguments.limit_s, resident)
    return rows_of(contestants, list(_in_order(refusals, taken)), work)


def _in_order(refusals: list[str], taken: list[Taken]) -> Iterator[Taken | str]:
    """What each contestant took, or why it was refused."""
    ran = iter(taken)
    for refusal in refusals:
        yield refusal or next(ran)


def _report(
    arguments: argparse.Namespace,
    limits: Limits,
    done: list[tuple[Case, list[Row]]],
    work: dict[Case, int],
    missing: list[str],
) -> dict[str, Any]:
    return {
        "machine": machine(),
        "command": ["splitmerge", *getattr(arguments, "words", sys.argv[1:])],
        "inputs": INPUTS,
        "limits": vars(limits),
        "left_out": missing,
        "cases": [
            {
                **vars(case),
                "multiply_adds": work[case],
                "times_the_best_peer": verdict(rows),
                "rows": [row.to_json() for row in rows],
            }
            for case, rows in done
        ],
    }
