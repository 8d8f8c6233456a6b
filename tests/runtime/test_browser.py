"""What a browser makes of a run: overlays play frame by frame, and the live page shows what goes on."""

import cv2
import numpy as np
import pytest
from browsers import browsing, chromium, screenshot, served
from clips import SIZE, Threshold, number_of, write_clip, write_package
from test_page import _result

import splitmerge.commands.run
from runtime.page import live_page
from splitmerge.cli import main
from splitmerge.labels import CITYSCAPES

FRAMES, FPS = 24, 8.0

PLAYER = """<!doctype html><video muted></video><script>
"use strict";
const video = document.querySelector("video"), canvas = document.createElement("canvas"), seen = [];
const report = facts => fetch("report", {method: "POST", body: JSON.stringify(facts)});
function look(now, frame) {
  canvas.width = frame.width; canvas.height = frame.height;
  const picture = canvas.getContext("2d");
  picture.drawImage(video, 0, 0);
  const pitch = frame.width / 8;
  let number = 0;
  for (let bit = 0; bit < 8; bit++) {
    const [, green] = picture.getImageData(pitch * bit + pitch / 2, frame.height / 2, 1, 1).data;
    number += (green > 125) << bit;
  }
  seen.push([number, frame.mediaTime]);
  video.requestVideoFrameCallback(look);
}
video.requestVideoFrameCallback(look);
video.onended = () => report({width: video.videoWidth, height: video.videoHeight, duration: video.duration,
                              at: video.currentTime, state: video.readyState, seen: seen});
video.onerror = () => report({error: video.error.message});
video.src = decodeURIComponent(location.hash.slice(1));
video.play().catch(error => report({error: String(error)}));
</script>"""


@pytest.mark.parametrize("name", ["o.mp4", "o.webm"])
def test_an_overlay_plays_to_its_end(name, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="needs PyAV: pip install av")
    chromium()
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")
    clip, folder = write_clip(tmp_path / "in.mp4", FRAMES, fps=FPS), tmp_path / "served"
    arguments = ["run", str(clip), "--package", str(tmp_path / "package"), "--alpha", "0.2"]
    assert main([*arguments, "--overlay", str(folder / name)]) == 0
    (folder / "index.html").write_text(PLAYER)
    with served(folder) as (url, reports), browsing(f"{url}/#{name}", tmp_path / "profile"):
        said = reports.get(timeout=90)
    assert "error" not in said, said
    assert (said["height"], said["width"]) == SIZE
    assert said["duration"] == pytest.approx(FRAMES / FPS, abs=0.02) == said["at"]
    assert said["state"] >= 2
    # A busy machine may skip frames on screen; each that is shown is at its own time.
    assert len(said["seen"]) >= FRAMES / 3
    for number, time_s in said["seen"]:
        assert time_s == pytest.approx(number / FPS, abs=0.002)


def test_the_live_page_follows_the_run(tmp_path):
    """From the screen alone: the picture is the newest frame, and the figures below it change as well."""
    with live_page("0", CITYSCAPES, 0.2) as page:
        shots = []
        for index in (3, 200):
            page.sink(_result(index, (256, 512)))
            shots.append(cv2.imread(str(screenshot(page.url, tmp_path / f"{index}.png")))[:, :, 1])
    assert [_number_shown(shot) for shot in shots] == [3, 200]
    assert (shots[0][460:] != shots[1][460:]).any()


def _number_shown(shot):
    inside = np.flatnonzero(shot[200] < 250)  # the page itself is white there
    return number_of(shot[190:210, inside.min() : inside.max() + 1])
