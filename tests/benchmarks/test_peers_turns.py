"""Contestants in turn: the slow are slower, the wrong are named, the broken leave the rest alone."""

import json
from pathlib import Path

import numpy as np
import planted
import pytest
from small_package import make_package

from benchmarks.peers import turns
from benchmarks.peers.contestants import LIMIT, PEER, PROJECT, Contestant
from benchmarks.peers.rows import rows_of
from benchmarks.peers.turns import Entrant, take_turns
from engines.build import build_engines

ROUNDS = 3


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(planted.__file__).parent))
    build_engines(make_package(tmp_path / "own"))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "frame.npy", rng.integers(0, 256, (45, 70, 3), np.uint8))
    return tmp_path / "own"


def run(package: Path, contestants: list[Contestant], resident: bool = True, limit_s: float = 60) -> list[turns.Taken]:
    entrants = [Entrant(contestant, package) for contestant in contestants]
    folder = package.parent
    return take_turns(entrants, ROUNDS, folder / "frame.npy", folder, 8, limit_s, resident)


def test_slow_wrong_and_broken_contestants(package: Path) -> None:
    contestants = [
        Contestant("this project", PROJECT, "benchmarks.peers.project:executor"),
        Contestant("ONNX Runtime", PEER, "benchmarks.peers.rivals:onnxruntime_defaults"),
        Contestant("slow", PEER, "planted:slow"),
        Contestant("wrong", PEER, "planted:wrong"),
        Contestant("failing", PEER, "planted:fails_on_third"),
        Contestant("killed", PEER, "planted:killed_on_third"),
        Contestant("absent", PEER, "planted:cannot_load"),
        Contestant("product", LIMIT, "benchmarks.peers.rivals:gemm", arguments={"size": 64}),
    ]
    taken = run(package, contestants)
    rows = {row.name: row for row in rows_of(contestants, taken, 10**9)}
    assert "the third is too many" in rows["failing"].skipped
    assert rows["killed"].skipped == "it was ended by SIGKILL"
    assert "no such thing here" in rows["absent"].skipped
    survivors = [rows[name] for name in ("this project", "ONNX Runtime", "slow", "wrong", "product")]
    assert [len(row.ms) for row in survivors] == [ROUNDS] * 5
    project, stock, slow, wrong, _ = survivors
    assert project.agreement == stock.agreement == slow.agreement == 1.0
    assert wrong.agreement == pytest.approx(0.98, abs=1e-3) and wrong.wrong and not stock.wrong
    assert slow.least_ms is not None and slow.least_ms >= 1e3 * planted.SLOWER_S
    assert slow.times is not None and stock.times is not None and slow.times < stock.times
    # `wrong` keeps its labels and so is the fastest, but nobody to be compared with
    assert stock.times == 1.0 and wrong.times is not None and wrong.times > 1
    assert all(row.memory_mib is not None and 0 <= row.memory_mib < 500 for row in survivors[:4])


def test_those_who_wait_stand_still_and_turns_alternate(package: Path) -> None:
    log = package.parent / "log"
    contestants = [
        Contestant("spinning", PEER, "planted:spinning", arguments={"log": str(log)}),
        Contestant("resting", PEER, "planted:resting", arguments={"log": str(log)}),
    ]
    run(package, contestants)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["what"] for event in events] == ["begin", "end", "rested"] * (ROUNDS + 1)
    spun = [event for event in events if event["what"] != "rested"]
    between = [later["cpu_s"] - earlier["cpu_s"] for earlier, later in zip(spun[1::2], spun[2::2], strict=False)]
    assert max(between[1:]) < 0.15  # of the 0.3 s that the other takes; setting up the other comes before


def test_without_room_for_all_a_worker_lives_for_a_turn(package: Path) -> None:
    contestants = [Contestant("this project", PROJECT, "benchmarks.peers.project:executor")]
    (taken,) = run(package, contestants, resident=False)
    assert len(taken.ms) == ROUNDS and not taken.failed and taken.peak_mib > taken.baseline_mib > 0
    assert taken.labels is not None and taken.labels.exists()


def test_a_hanging_contestant_is_ended(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LEAST_S", 1.0)
    monkeypatch.setattr(turns, "_PATIENCE", 0)
    contestants = [
        Contestant("hanging", PEER, "planted:hangs_on_third"),
        Contestant("exact", PEER, "planted:exact", arguments={"labels": [1]}),
    ]
    hanging, exact = run(package, contestants)
    assert hanging.failed == "hanging gave no answer within 1 s" and len(exact.ms) == ROUNDS


def test_a_frame_that_takes_too_long_is_said(package: Path) -> None:
    (taken,) = run(package, [Contestant("slow", PEER, "planted:slow")], limit_s=planted.SLOWER_S / 2)
    assert "--limit-s allows 0.2" in taken.failed and not taken.ms


def test_memory_beyond_the_limit_is_an_error_of_the_contestant(package: Path) -> None:
    entrant = Entrant(Contestant("product", LIMIT, "benchmarks.peers.rivals:gemm", arguments={"size": 2**15}), package)
    folder = package.parent
    (taken,) = take_turns([entrant], 1, folder / "frame.npy", folder, 1, 60, True)
    assert "llocat" in taken.failed, taken.failed
