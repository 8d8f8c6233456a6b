"""What follows from times, labels and sizes: ratios, shares, estimates, tables and lines of the picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.limits import Limits, gemm_gflops, measure_limits
from benchmarks.peers.contestants import GEMM, LIMIT, PEER, PROJECT, Contestant, contestants_of
from benchmarks.peers.estimates import Estimates
from benchmarks.peers.packages import Case, prepared
from benchmarks.peers.picture import COLOURS, draw, panels_of
from benchmarks.peers.rows import Row, agreements, rows_of
from benchmarks.peers.table import markdown, screen, verdict
from benchmarks.peers.turns import Taken

CASE = Case("smp18", 16, 128, 256)
OURS = Contestant("this project, split form", PROJECT, "x")
ONE = Contestant("ONNX Runtime, split form", PEER, "x")
TWO = Contestant("ONNX Runtime, dilated form", PEER, "x", "dilated")
PRODUCT = Contestant(GEMM, LIMIT, "x", arguments={"size": 1024})


def saved(path: Path, labels: list[int], margins: list[float] | None = None) -> Path:
    more = {} if margins is None else {"margins": np.array([margins], np.float32)}
    np.savez(path, labels=np.array([labels], np.uint8), **more)
    return path


def test_ratios_rates_and_shares() -> None:
    taken = [
        Taken(30, [10.0, 14.0, 8.0], 1, 100, 140, notes={"chunk": 2}),
        Taken(30, [25.0, 20.0, 21.0], 1, 100, 400),
        "no room",
        Taken(0, [400.0, 100.0, 200.0]),
    ]
    ours, one, two, product = rows_of([OURS, ONE, TWO, PRODUCT], taken, 2 * 10**8)
    assert (ours.median_ms, ours.least_ms, ours.most_ms, ours.memory_mib) == (10, 8, 14, 40)
    assert ours.to_json()["notes"] == {"chunk": 2} and "notes" not in one.to_json()
    assert ours.times == 2.1 and one.times == 1.0 and product.times is None
    assert two.skipped == "no room" and two.median_ms is None
    assert ours.gflops == 40.0  # 0.4 G operations in 10 ms
    assert product.gflops == pytest.approx(2 * 1024**3 / 0.2 / 1e9, rel=1e-3)
    assert ours.of_gemm == pytest.approx(40 / 10.74, rel=1e-2)


def test_one_with_other_labels_is_not_the_best_peer(tmp_path: Path) -> None:
    good, bad = [1] * 1000, [1] * 998 + [2, 2]
    taken = [
        Taken(ms=[10.0], labels=saved(tmp_path / "a.npz", good)),
        Taken(ms=[30.0], labels=saved(tmp_path / "b.npz", good)),
        Taken(ms=[5.0], labels=saved(tmp_path / "c.npz", bad)),
    ]
    ours, one, two = rows_of([OURS, ONE, TWO], taken, 1)
    assert ours.times == 3.0 and not one.wrong
    assert two.wrong and two.agreement == 0.998


def test_near_ties_are_left_out(tmp_path: Path) -> None:
    named = [
        ("ours", saved(tmp_path / "a.npz", [1, 2, 3, 4])),
        ("torch", saved(tmp_path / "b.npz", [1, 2, 9, 4], [1.0, 1.0, 1e-5, 1.0])),
        ("other", saved(tmp_path / "c.npz", [1, 9, 3, 4])),
        ("small", saved(tmp_path / "d.npz", [1])),
    ]
    found = agreements(named)
    assert found == {"ours": (1.0, 0.25), "torch": (1.0, 0.25), "other": (2 / 3, 0.25), "small": (0.0, 0.25)}
    assert agreements(named[::2]) == {"ours": (1.0, None), "other": (0.75, None)}  # nobody knows ties
    assert agreements([]) == {}


def test_who_takes_part() -> None:
    forms, cut = {"own": "split form", "dilated": "dilated form"}, {"own": True, "dilated": False}
    found = contestants_of(forms, cut, ("eager", "onnxruntime"))
    assert [(c.name, c.form, c.whole) for c in found] == [
        ("this project, split form", "own", False),
        ("this project, dilated form", "dilated", True),
        ("PyTorch eager", "own", True),
        ("ONNX Runtime, split form", "own", True),
        ("ONNX Runtime, dilated form", "dilated", True),
        (GEMM, "own", True),
    ]


def test_forms_that_are_left_out_are_still_given_to_peers() -> None:
    forms = {"own": "split form", "dilated": "dilated form", "native": "split form, native"}
    found = contestants_of(forms, dict.fromkeys(forms, True), ("onnxruntime",), ("native",))
    assert [(c.name, c.form) for c in found[:-1]] == [
        ("this project, split form, native", "native"),
        ("ONNX Runtime, split form", "own"),
        ("ONNX Runtime, dilated form", "dilated"),
    ]


def test_what_is_absent_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.contestants.is_installed", lambda name: False)
    (_, peer, _) = contestants_of({"own": "its only form"}, {"own": False}, ("openvino",))
    assert peer.missing.startswith("openvino is not installed: pip install")
    assert Estimates(1.0).refusal(peer, CASE, 1, 1, 1, 1) == peer.missing


def test_a_form_that_is_the_networks_own_is_not_run_twice() -> None:
    found = {"own": {"cut": True}, "split": {"cut": True, "same_as": "own"}, "dilated": {"cut": False}}
    packages = prepared(Path("p"), found)
    assert packages.forms == {"own": "split form", "dilated": "dilated form"}
    assert packages.cut == {"own": True, "dilated": False}
    alone = prepared(Path("p"), {"own": {"cut": False}, "split": {"missing": "no"}, "dilated": {"missing": "no"}})
    assert alone.forms == {"own": "its only form"}


def test_estimates_are_of_the_machine_and_then_of_what_was_seen() -> None:
    estimates = Estimates(100.0)
    assert estimates.seconds(ONE, CASE, 25 * 10**9) == 2.0  # a quarter of 100 GFLOP/s
    whole, streamed = ONE, Contestant("s", PROJECT, "x", whole=False)
    assert estimates.mib(whole, CASE, 16.0) == 128.0 and estimates.mib(streamed, CASE, 16.0) == 16.0
    estimates.note(CASE, [Row(ONE.name, PEER, "own", median_ms=500.0, memory_mib=64.0)])
    larger = Case("smp18", 16, 256, 512)
    assert estimates.seconds(ONE, larger, 1) == 2.0 and estimates.mib(ONE, larger, 1.0) == 256.0
    assert "needs about 0.2 GiB, 0.2 GiB" in estimates.refusal(ONE, larger, 1, 1, 0.2, 9)
    assert "takes about 2 s a frame, 1 s are allowed" in estimates.refusal(ONE, larger, 1, 1, 9, 1)
    assert estimates.refusal(ONE, larger, 1, 1, 9, 9) == ""
    assert estimates.seconds(ONE, Case("smp18", 64, 256, 512), 25 * 10**9) == 2.0  # of another width


ROWS = [
    Row("this project, split form", PROJECT, "own", median_ms=10.0, least_ms=9, most_ms=12, memory_mib=40.0, times=2.0),
    Row("this project, dilated form", PROJECT, "dilated", median_ms=8.0, least_ms=8, most_ms=8, times=2.5, wrong=True),
    Row("OpenVINO", PEER, "own", skipped="openvino is not installed"),
    Row(GEMM, LIMIT, "own", median_ms=100.0, least_ms=90.0, most_ms=110.0, gflops=171.8),
]  # fmt: skip


def test_tables_say_what_was_left_out_and_what_is_wrong() -> None:
    text = screen(CASE, ROWS, 10**9)
    assert "left out: openvino is not installed" in text and "9.0..12.0" in text
    assert [line.split()[2] for line in text.splitlines() if line.endswith("OTHER LABELS")] == ["dilated"]
    head, _, line = markdown([(CASE, ROWS)]).splitlines()
    assert head == "| ms a frame (MiB) | this project | OpenVINO | ratio |"
    assert line == "| smp18 of width 16, 128x256 | 10 split (40) | - | 2.00 |"
    assert verdict(ROWS) == 2.0 and verdict(ROWS[1:]) is None


def test_the_picture_has_a_line_for_each_contestant(tmp_path: Path) -> None:
    larger = [Row(row.name, row.role, row.form, median_ms=4 * row.median_ms) for row in ROWS if row.median_ms]
    cases = [(Case("smp18", 16, 256, 512), larger), (CASE, ROWS)]
    lines = dict(panels_of(cases, "median_ms"))
    assert lines["this project, split form"] == [(128 * 256, 10.0), (256 * 512, 40.0)]
    assert GEMM not in lines and "OpenVINO" not in lines
    draw(tmp_path / "p.png", cases)
    picture = cv2.imread(str(tmp_path / "p.png"))
    red = np.all(picture == COLOURS["this project"], axis=2)
    assert red[:380, :640].sum() > 200 and red[:380, 640:].sum() > 20  # time on the left, one point of memory


def test_the_machines_limits() -> None:
    assert gemm_gflops(1000, 0.5) == 4.0
    limits = measure_limits(64, 8)
    assert isinstance(limits, Limits) and limits.gemm_gflops > 0.01 and limits.copy_gb_per_s > 0.01
