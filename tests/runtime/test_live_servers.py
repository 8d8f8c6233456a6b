"""RTSP, RTMP, HTTP, MJPEG and UDP from servers that nobody here made: slowed, paused, killed and started again."""

import contextlib
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from clips import SIZE, Threshold, number_of, write_package
from senders import free_port, wait_for
from servers import FRAMES, LOGIN, PROTOCOLS, RATE, Server, make_streams
from tenacity import wait_fixed
from test_live import check_sums

import splitmerge.commands.run
from runtime import live
from runtime.live import Limits
from runtime.pipeline import run_pipeline
from runtime.sources import open_source, silence_decoder
from splitmerge.cli import main
from splitmerge.errors import InputError

ROOT = Path(__file__).parents[2]

silence_decoder()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(live, "WAIT", wait_fixed(0.2))
    monkeypatch.setattr(live.connection, "OPEN_S", 8.0)  # RTMP takes FFmpeg 5


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    return make_streams(tmp_path_factory.mktemp("streams"))


def connect(server, limits):
    """A server takes a moment until it listens."""
    opened = []

    def listens():
        try:
            opened.append(open_source(server.url, limits=limits))
        except InputError as error:
            assert LOGIN[1] not in str(error)
        return opened

    wait_for(listens)
    return opened[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_is_slow_then_silent_then_killed(protocol, streams, capfd):
    """The run goes on through all three, every frame is counted, and each result is of the frame that it says."""
    results, seen = [], {}
    with Server(protocol, streams, login=("digest", *LOGIN)) as server:
        source = connect(server, Limits(stall_s=1.5, reconnect=100))
        assert source.live and source.fps == RATE

        def more():
            wanted = len(results) + 10
            wait_for(lambda: len(results) >= wanted)

        def mishaps():
            more()
            server.slow(2.0)
            seen["slow"] = source.events.outages
            more()
            server.pause()
            wait_for(lambda: source.events.stalls)
            server.go_on()
            wait_for(lambda: source.events.reconnects)
            more()
            seen["paused"] = source.events.outages
            server.kill()
            if protocol == "udp":  # whose next sender simply goes on
                starts = server.starts
                wait_for(lambda: server.starts > starts)
            else:
                wait_for(lambda: source.events.reconnects > seen["paused"])
            more()
            more()

        with ThreadPoolExecutor(1) as pool:
            storm = pool.submit(mishaps)
            storm.add_done_callback(lambda _: source.close())
            summary = run_pipeline(source, Threshold(), [results.append], SIZE)
            storm.result()
    check_sums(summary, results)
    assert seen == {"slow": 0, "paused": 1}, "slow is not lost"
    outages = 1 if protocol == "udp" else 2
    assert (summary.outages, summary.reconnects, summary.source_lost) == (outages, outages, False)
    assert summary.stalls >= 1
    for _, connection in itertools.groupby(results, lambda result: result.reconnects):
        offsets = {(number_of(result.labels) - result.frame.index) % FRAMES for result in connection}
        assert len(offsets) == 1 or protocol == "udp", "only UDP may lose frames on the way"
    last = [(result.frame.time_s, result.frame.index) for result in results[-10:]]
    steps = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(last)]
    assert np.median(steps) == pytest.approx(1 / RATE, abs=0.002), "the stream's own time, after all that"
    said = capfd.readouterr().err
    assert said.count("connected again") == outages and not any(secret in said for secret in LOGIN)


def test_an_outage_is_given_up_after_its_time(streams):
    results = []
    with Server("http", streams) as server:
        source = connect(server, Limits(stall_s=1.0, reconnect=1000, reconnect_s=1.5))

        def sink(result):
            results.append(result)
            if len(results) == 10:
                server.close()

        summary = run_pipeline(source, Threshold(), [sink], SIZE)
    check_sums(summary, results)
    assert summary.source_lost and summary.outages == 1 and 1 <= summary.attempts < 20


def test_a_server_that_stays_silent_is_given_up(streams):
    results = []
    with Server("http", streams) as server:  # paused, its ffmpeg takes no second connection
        source = connect(server, Limits(stall_s=1.0, reconnect=3))

        def sink(result):
            results.append(result)
            if len(results) == 10:
                server.pause()

        summary = run_pipeline(source, Threshold(), [sink], SIZE)
    check_sums(summary, results)
    assert (summary.outages, summary.stalls, summary.attempts, summary.source_lost) == (1, 1, 3, True)


@pytest.mark.parametrize("login", ["basic", "digest"])
def test_a_whole_run_of_an_rtsp_camera_says_no_password(streams, tmp_path, login):
    """As a user meets it, in a process of its own, which must also end well."""
    write_package(tmp_path / "package")
    script = (
        "import sys; sys.path.insert(0, 'tests/runtime')\n"
        "import splitmerge.commands.run\n"
        "from clips import Threshold\n"
        "splitmerge.commands.run.open_executor = lambda package, arguments: Threshold()\n"
        "from splitmerge.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    outputs = ["--overlay", f"{out}/o.mp4", "--records", f"{out}/frames.jsonl", "--json", f"{out}/run.json"]

    def run(url):
        arguments = ["run", url, "--package", str(tmp_path / "package"), "--frames", "30", *outputs]
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    with Server("rtsp", streams, login=(login, *LOGIN)) as server:
        connect(server, Limits()).close()
        refused = run(server.url.replace("s3cret", "wr0ng"))
        done = run(server.url)
    assert done.returncode == 0, done.stderr
    assert refused.returncode == 2 and "cannot be opened as a live source" in refused.stderr
    summary = json.loads((out / "run.json").read_text())
    assert (summary["frames"], summary["outages"], summary["live"]) == (30, 0, True)
    assert summary["source"] == f"rtsp://***@127.0.0.1:{server.port}/live"
    said = [done.stdout, done.stderr, refused.stdout, refused.stderr]
    written = [path.read_bytes().decode(errors="replace") for path in out.iterdir()]
    assert len(written) == 4  # with what the run says of itself for --resume
    for text in (*said, *written):
        assert not any(secret in text for secret in (LOGIN[0], "s3cret", "wr0ng"))


def test_the_live_page_says_no_password(streams, tmp_path, monkeypatch):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda *_: Threshold())
    write_package(tmp_path / "package")
    port, seen = free_port(), {}
    page = f"http://127.0.0.1:{port}"

    def look():
        status = {"frames": 0}
        while status["frames"] < 5:
            with contextlib.suppress(OSError):
                text = urlopen(f"{page}/status.json", timeout=5).read().decode()
                status = max(_objects(json.loads(text)), key=lambda found: found["frames"])
                seen["status"] = text
        seen.update({path: urlopen(page + path, timeout=5).read().decode() for path in ("/", "/metrics")})

    with Server("rtsp", streams, login=("digest", *LOGIN)) as server, ThreadPoolExecutor(1) as pool:
        connect(server, Limits()).close()
        looking = pool.submit(look)
        arguments = ["run", server.url, "--package", str(tmp_path / "package"), "--page", str(port), "--frames", "200"]
        assert main(arguments) == 0
        looking.result(30)
    assert len(seen) == 3
    for text in seen.values():
        assert not any(secret in text for secret in (LOGIN[0], "s3cret"))


def _objects(value):
    """Every object with a count of frames, however the page arranges them."""
    if isinstance(value, dict):
        yield from [value] if "frames" in value else []
        value = list(value.values())
    for entry in value if isinstance(value, list) else []:
        yield from _objects(entry)


def test_a_camera_of_this_machine():
    if not any(path.is_char_device() for path in Path("/dev").glob("video*")):
        pytest.skip("needs a V4L2 camera: there is no /dev/video*")
    results = []
    summary = run_pipeline(open_source("0"), Threshold(), [results.append], SIZE, 20)
    check_sums(summary, results)
    assert summary.live and summary.frames == 20


def test_rtsp_over_udp_alone_and_over_tcp_where_there_is_a_choice(streams):
    for udp in (True, False):
        with Server("rtsp", streams, udp=udp) as server:
            source = connect(server, Limits(5))
            frames = [frame for frame, _ in zip(source, range(30), strict=False)]
            source.close()
        assert [frame.index for frame in frames] == sorted(frame.index for frame in frames)
        assert set(server.said.split()) == {"udp" if udp else "tcp"}


def test_an_rtsp_archive_is_processed_whole(streams):
    """A stream that says how long it is counts as a file, at the pace at which the server sends it."""
    results = []
    with Server("rtsp", streams) as server:
        connect(server, Limits()).close()
        source = open_source(server.url.replace("/live", "/archive"))
        summary = run_pipeline(source, Threshold(), [results.append], SIZE)
    assert [number_of(result.labels) for result in results] == list(range(50))
    assert (summary.live, summary.dropped, summary.outages, summary.missing_frames) == (False, 0, 0, 0)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http"])
def test_a_refused_connection_is_told_at_once_and_without_its_password(scheme):
    url = f"{scheme}://{LOGIN[0]}:s3cret@127.0.0.1:{free_port()}/live"
    with pytest.raises(InputError, match=rf"{scheme}://\*\*\*@127.0.0.1:\d+/live cannot be opened") as error:
        open_source(url)
    assert "s3cret" not in str(error.value) and LOGIN[0] not in str(error.value)
