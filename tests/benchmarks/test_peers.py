"""`splitmerge bench` from end to end on tiny networks: what it says, not how fast anything was."""

import json
from pathlib import Path

import pytest

from benchmarks.limits import measure_limits
from benchmarks.peers import comparison, contestants
from splitmerge.cli import main
from splitmerge.errors import EngineError


@pytest.fixture(autouse=True)
def quick_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "measure_limits", lambda: measure_limits(64, 8))
    monkeypatch.setattr(contestants, "GEMM_SIZE", 64)


TINY = ["bench", "--widths", "4", "--sizes", "32x64", "--rounds", "2"]


def test_a_network_of_one_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "b.json"), "--picture", str(tmp_path / "b.png")]
    files += ["--markdown", str(tmp_path / "b.md")]
    peers = ["--peers", "eager", "onnxruntime"]
    assert main([*TINY, "--networks", "fcn8s-18", *peers, *files]) == 0
    report = json.loads((tmp_path / "b.json").read_text())
    (case,) = report["cases"]
    ours = [f"this project, its only form{words}" for words in ("", ", for CPUs", ", native")]
    assert [row["name"] for row in case["rows"]] == [
        *ours,
        "PyTorch eager",
        "ONNX Runtime, its only form",
        "matrix product",
    ]
    for row in case["rows"][:5]:
        assert len(row["ms"]) == 2 and row["agreement"] == 1.0
    projects, others = case["rows"][:3], case["rows"][3:5]
    assert not any("memory_mib" in row for row in projects), "whole graphs run once while they load"
    assert all(row["memory_mib"] >= 0 for row in others)
    assert all(row["notes"]["threads"] and row["notes"]["chunk"] == 1 for row in projects)
    assert case["times_the_best_peer"] == max(row["times"] for row in projects) and report["left_out"] == []
    assert report["command"][:2] == ["splitmerge", "bench"] and "openvino" in report["machine"]["versions"]
    assert (tmp_path / "b.md").read_text().strip() in capsys.readouterr().out
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_what_does_not_fit_and_what_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def child(words: list[str], what: str) -> str:
        if "smp18" in words:
            raise EngineError(f"{what} failed (no room): try again.")
        Path(words[5]).mkdir()
        return '{"own": {"cut": false}}'

    monkeypatch.setattr(comparison, "child", child)
    record = tmp_path / "b.json"
    words = ["--networks", "smp18", "fcn8s-18", "--peers", "eager", "--limit-s", "0.0000001", "--json", str(record)]
    assert main([*TINY, *words]) == 0
    out = capsys.readouterr().out
    assert "smp18 of width 4, 32x64 left out: Exporting" in out
    report = json.loads(record.read_text())
    assert len(report["left_out"]) == 1
    assert all("1e-07 s are allowed" in row["skipped"] for row in report["cases"][0]["rows"][:2])


@pytest.mark.slow
def test_every_peer_and_form_gives_the_same_labels(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    record = tmp_path / "b.json"
    assert main([*TINY, "--networks", "smp18", "--json", str(record)]) == 0
    for case in json.loads(record.read_text())["cases"]:
        forms = [
            f"{who}, {form} form"
            for who in ("this project", "ONNX Runtime", "OpenVINO")
            for form in ("split", "dilated")
        ]
        rows = {row["name"]: row for row in case["rows"]}
        for name in (*forms, "this project, split form, native", "PyTorch eager", "PyTorch compiled"):
            assert rows[name].get("agreement", 0) > 0.999, (case["network"], rows[name])


@pytest.mark.slow
def test_one_form_beside_what_others_run(tmp_path: Path) -> None:
    """Peers get the graphs of forms that this project leaves out."""
    record = tmp_path / "b.json"
    words = ["--networks", "smp18", "--forms", "native", "--peers", "onnxruntime", "--json", str(record)]
    assert main([*TINY, *words]) == 0
    (case,) = json.loads(record.read_text())["cases"]
    assert [(row["name"], row.get("agreement")) for row in case["rows"][:-1]] == [
        ("this project, split form, native", 1.0),
        ("ONNX Runtime, split form", 1.0),
        ("ONNX Runtime, dilated form", 1.0),
    ]
