"""A resumption that is refused or breaks off leaves what the earlier run left, where it lay."""

import errno
from pathlib import Path

import pytest
from clips import names, write_clip
from test_resume import FRAMES, Runs, contents

from runtime.growing import GrowingRecords, unwritable
from runtime.growing_overlay import GrowingOverlay
from runtime.video_writer import encoder_for

pytestmark = pytest.mark.skipif(encoder_for(Path("a.mp4")) is None, reason="PyAV is missing: pip install av")


@pytest.fixture
def runs(tmp_path, monkeypatch, capfd):
    return Runs(tmp_path, write_clip(tmp_path / "in.mp4", FRAMES), monkeypatch, capfd)


def _left(out):
    """Everything there, hidden or not, but for measured times."""
    return contents(out), sorted(path.name for path in out.iterdir())


def _cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\n") + 1] if path.suffix == ".jsonl" else data[:2000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda out: (out / "masks/000005.png").unlink(), "/masks has the first 5 of the 33 frames"),
        (lambda out: (out / "colours/000029.png").unlink(), "/colours has the first 29 of the 33 frames"),
        (lambda out: _cut(out / "frames.jsonl"), "/frames.jsonl has the first 1 of the 33 frames"),
        (lambda out: _cut(out / "o.mp4"), "/o.mp4 was to have 30 frames and "),
        (lambda out: (out / "o.mp4").unlink(), "/o.mp4 of the interrupted run is gone"),
    ],
)
def test_what_is_refused_stays_where_it_is(runs, tmp_path, spoil, words):
    outputs, out = runs.outputs("out"), tmp_path / "out"
    assert runs.run(*outputs, fail_at=33) == 130
    spoil(out)
    before = _left(out)
    for _ in range(2):
        assert runs.run(*outputs, "--resume") == 2
        (line,) = runs.said.err.splitlines()
        assert f"{out}{words}" in line and line.endswith("leave out --resume to begin anew.")
        assert _left(out) == before and not runs.engine.sizes


def _broken(function, at, error):
    """`function`, which fails when it is called for the `at`-th time, after it did what it does."""
    calls = []

    def broken(*arguments):
        calls.append(function(*arguments))
        if len(calls) == at:
            raise error

    return broken


FULL = unwritable("a", OSError(errno.ENOSPC, "No space left on device"))


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (FULL, 2)])
@pytest.mark.parametrize(
    ("where", "name", "at"),
    [(GrowingOverlay, "draw", 2), (GrowingOverlay, "reopen", 1), (GrowingRecords, "reopen", 1)],
)
@pytest.mark.parametrize("masks", [True, False])
def test_what_breaks_off_stays_where_it_is_and_can_be_gone_on_with(
    runs,
    tmp_path,
    monkeypatch,
    error,
    code,
    where,
    name,
    at,
    masks,
):
    outputs, out = runs.outputs("out"), tmp_path / "out"
    if not masks:
        outputs = [*outputs[:2], *outputs[6:]]
    assert runs.run(*[word.replace("/out/", "/whole/") for word in outputs]) == 0
    assert runs.run(*outputs, fail_at=33) == 130
    before = _left(out)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, _broken(getattr(where, name), at, error))
        assert runs.run(*outputs, "--resume") == code
    (line,) = runs.said.err.splitlines()
    assert "33 frames are done and kept; go on with: splitmerge run " in line and line.endswith("--resume")
    assert _left(out) == before and not runs.engine.sizes
    assert runs.run(*outputs, "--resume") == 0
    assert len(runs.engine.sizes) == FRAMES - 33
    assert contents(out) == contents(tmp_path / "whole")


def test_a_hole_in_the_masks_is_filled(runs, tmp_path):
    """Without an overlay, which could not be cut there, the run goes on at the first that is missing."""
    outputs, out = runs.outputs("out")[2:-1], tmp_path / "out"
    assert runs.run(*[word.replace("/out/", "/whole/") for word in outputs]) == 0
    assert runs.run(*outputs, fail_at=33) == 130
    (out / "masks/000021.png").unlink()
    assert runs.run(*outputs, "--resume") == 0
    assert len(runs.engine.sizes) == FRAMES - 21
    assert contents(out) == contents(tmp_path / "whole")
    assert names(out) == ["colours", "frames.jsonl", "masks"]
