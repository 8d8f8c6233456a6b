"""ffmpeg as the sender: UDP joined between key frames, and a pipe."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, Threshold, number_of, numbered_frame
from senders import ffmpeg, ffmpeg_path, free_port
from servers import make_streams
from tenacity import wait_fixed
from test_live import check_sums

from runtime import live
from runtime.ages import Ages
from runtime.live import Limits
from runtime.pipeline import run_pipeline
from runtime.sources import open_source, silence_decoder

silence_decoder()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(live, "WAIT", wait_fixed(0.2))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_streams(tmp_path_factory.mktemp("streams")) / "clip.ts"


def sender(clip, *target):
    return ffmpeg("-re", "-stream_loop", -1, "-i", clip, "-c", "copy", "-f", "mpegts", *target)


class Faulty:
    """A sink that does something to the sender at one frame."""

    def __init__(self, at, act):
        self.at, self.act, self.results = at, act, []

    def __call__(self, result):
        self.results.append(result)
        if len(self.results) == self.at:
            self.act()


def test_udp_joined_between_key_frames_shows_whole_frames_only_and_survives_a_pause(clip):
    url = f"udp://127.0.0.1:{free_port()}"
    with sender(clip, url) as process:
        time.sleep(0.3)  # so that the first packets are not those of a key frame
        source = open_source(url, limits=Limits(1.0))

        def pause():
            process.send_signal(signal.SIGSTOP)
            threading.Timer(2.5, process.send_signal, (signal.SIGCONT,)).start()

        sink = Faulty(15, pause)
        summary = run_pipeline(source, Threshold(), [sink], SIZE, limit=50)
    check_sums(summary, sink.results)
    assert summary.stalls >= 1 and summary.reconnects >= 1 and not summary.source_lost
    for result in sink.results:  # black and white columns as the sender drew them, no gray and no smear
        frame = result.frame.frame_bgr[:, :, 1].astype(int)
        assert np.abs(frame - numbered_frame(number_of(frame))[:, :, 1]).mean() < 8


def test_standard_input_is_processed_whole(clip):
    script = (
        "import sys; sys.path.insert(0, 'tests/runtime')\n"
        "from clips import SIZE, Threshold, number_of\n"
        "from runtime.pipeline import run_pipeline\n"
        "from runtime.sources import open_source\n"
        "out = []\n"
        "summary = run_pipeline(open_source('-'), Threshold(), [lambda r: out.append(number_of(r.labels))], SIZE)\n"
        "print(summary.source, summary.live, summary.dropped, out == list(range(200)))"
    )
    arguments = [ffmpeg_path(), "-v", "error", "-nostdin", "-i", str(clip), "-c", "copy", "-f", "mpegts", "-"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as piping:
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            stdin=piping.stdout,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.strip() == "standard input False 0 True", done.stderr


def test_ages_are_numpys_quantiles_to_a_percent():
    ages, milliseconds = Ages(), np.random.default_rng(3).lognormal(4, 1.5, 20_000)
    assert ages.facts is None
    for age in milliseconds:
        ages.add(age)
    for share in (0.5, 0.95, 0.99):
        exact = np.quantile(milliseconds, share, method="inverted_cdf")
        assert exact <= ages.quantile(share) <= 1.0101 * exact
    assert ages.facts["max"] == pytest.approx(milliseconds.max(), abs=1e-3)
