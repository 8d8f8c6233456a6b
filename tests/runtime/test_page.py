"""The live page over real sockets: what it serves, to whom, and that no viewer matters to the run."""

import http.client
import json
import re
import socket
import threading
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from clips import SIZE, Threshold, number_of, numbered_frame, write_clip, write_package

import runtime.page
import splitmerge.commands.run
from runtime.executor import FrameStats
from runtime.monitor import RATE_WINDOW_S, Monitor
from runtime.page import address_from_text, live_page
from runtime.sinks import Result
from runtime.sources import SourceFrame
from splitmerge.cli import main
from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES


def _result(index=0, size=SIZE, dropped=0, latency_ms=10.0, reconnects=0):
    frame_bgr = numbered_frame(index, size)
    labels = np.zeros(size, np.uint8)
    labels[: size[0] // 4] = 10  # a quarter of sky
    frame = SourceFrame(index, index / 10, frame_bgr)
    return Result(frame, labels, latency_ms, 5.0, FrameStats(1.0, 4.0, 16), dropped, reconnects=reconnects)


@pytest.fixture
def page():
    with live_page("0", CITYSCAPES, 0.2) as page:
        yield page


def _get(page, path="/", method="GET", **headers):
    where = urlsplit(page.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_before_the_first_frame_there_is_a_page_and_no_picture(page):
    answer, html = _get(page)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    assert b"<title>splitmerge run</title>" in html
    assert _get(page, "/overlay.jpg")[0].status == 204
    status = json.loads(_get(page, "/status.json")[1])
    assert (status["frames"], status["frame"], status["latency_ms"]["p50"]) == (0, None, None)


def test_the_page_needs_nothing_from_elsewhere(page):
    answer, html = _get(page)
    text = html.decode()
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r"data:,", "", text))
    assert set(re.findall(r"(?:src|href) ?= ?[\"`]([^\"`?]*)", text)) == {"data:,", "#", "overlay.jpg"}
    assert set(re.findall(r"fetch\(\"([^\"]*)", text)) == {"sources.json"}
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    (status,) = json.loads(_get(page, "/sources.json")[1])
    assert status == json.loads(_get(page, "/status.json")[1])
    for name in re.findall(r"for \(const name of \[([^]]*)\]", text)[0].replace('"', "").split(", "):
        assert name in status and f'class="{name}"' in text


def test_it_shows_the_newest_frame_and_counts_all(page):
    for index in range(40):
        page.sink(_result(index, dropped=index % 2, latency_ms=float(index), reconnects=index // 20))
    status = json.loads(_get(page, "/status.json")[1])
    assert (status["frames"], status["dropped"], status["reconnects"], status["frame"]) == (40, 20, 1, 39)
    assert status["latency_ms"] == {"p50": 19.5, "p95": 37.0, "p99": 38.6}
    assert status["split_batches"] == 16
    areas = {entry["name"]: entry["area"] for entry in status["classes"]}
    assert (areas["sky"], areas["road"], areas["car"]) == (0.25, 0.75, 0)
    assert len(areas) == 19
    answer, content = _get(page, "/overlay.jpg?n=39")
    assert answer.headers["Content-Type"] == "image/jpeg"
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (*SIZE, 3) and number_of(picture) == 39


def test_a_large_frame_is_shown_smaller_and_another_size_does_no_harm(page):
    for size, shown in [((1080, 1920), (540, 960)), ((64, 128), (64, 128)), ((65, 2001), (31, 960))]:
        page.sink(_result(7, size))
        picture = cv2.imdecode(np.frombuffer(_get(page, "/overlay.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (*shown, 3) and number_of(picture) == 7


def test_several_sources_each_have_their_own_numbers_and_picture():
    with live_page("0", CITYSCAPES, 0.2, ["a", "b c&d"]) as page:
        for index in range(3):
            page.sinks["a"](_result(index, dropped=1))
        page.sinks["b c&d"](_result(77, reconnects=2))
        page.end("a")
        page.end("b c&d", failed=True)
        first, second = json.loads(_get(page, "/sources.json")[1])
        assert (first["source"], first["frames"], first["dropped"], first["reconnects"]) == ("a", 3, 3, 0)
        assert (second["source"], second["frames"], second["dropped"], second["reconnects"]) == ("b c&d", 1, 0, 2)
        assert (first["state"], second["state"]) == ("ended", "failed")
        for query, number in [("", 2), ("?source=a&n=3", 2), ("?source=b%20c%26d", 77)]:
            content = _get(page, f"/overlay.jpg{query}")[1]
            assert number_of(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)) == number
            assert json.loads(_get(page, f"/status.json{query}")[1])["frame"] == number
        for unknown in ("/overlay.jpg?source=c", "/status.json?source=..%2fa", "/overlay.jpg?source=A"):
            assert _get(page, unknown)[0].status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/page.html",
        "/page.py",
        "/overlay.jpg/../page.py",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/.git/config",
        "http://127.0.0.1/etc/passwd",
        "/overlay.jpg%00.html",
        "etc/passwd",
        "/overlay.jpg?source=../../etc/passwd",
        "/overlay.jpg?source=%2fetc%2fpasswd",
        "/?source=/etc/passwd",
    ],
)
def test_it_serves_nothing_else(page, path):
    answer, content = _get(page, path)
    assert answer.status == 404 and content == b"There is no such page.\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_takes_nothing(page, method):
    assert _get(page, "/", method)[0].status == 501


def test_head_has_no_content(page):
    answer, content = _get(page, "/", "HEAD")
    assert answer.status == 200 and int(answer.headers["Content-Length"]) > 1000 and content == b""


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "", "[", "127.0.0.1.evil.example"])
def test_another_name_for_this_machine_is_refused(page, name):
    assert _get(page, "/overlay.jpg", Host=name)[0].status == 403
    assert _get(page, "/", Host="localhost:1234")[0].status == 200


def test_it_listens_on_localhost_unless_told_otherwise():
    assert address_from_text("8080") == ("127.0.0.1", 8080)
    assert address_from_text("0.0.0.0:80") == ("0.0.0.0", 80)
    assert address_from_text("[::1]:8080") == ("::1", 8080)
    with live_page("0", CITYSCAPES) as page:
        assert urlsplit(page.url).hostname == "127.0.0.1"
        others = socket.socket()
        others.settimeout(5)
        assert others.connect_ex(("127.0.0.2", urlsplit(page.url).port)) != 0, "another address of this machine"
        others.close()
    with live_page("0.0.0.0:0", CITYSCAPES) as page:
        port = urlsplit(page.url).port
        assert _get(replace(page, url=f"http://127.0.0.1:{port}/"), Host="camera.lan")[0].status == 200


@pytest.mark.parametrize("text", ["", "a", "-1", "65536", "host:", ":80", "::1:80", "http://a:80", "a b:80", "80/x"])
def test_an_address_that_is_none(text):
    with pytest.raises(InputError, match="is no address: give PORT or HOST:PORT"):
        address_from_text(text)


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 64, "nowhere.invalid"])
def test_a_host_that_is_not_here(host):
    with pytest.raises(InputError, match="cannot listen on port 8080 of"), live_page(f"{host}:8080", CITYSCAPES):
        pass


def test_a_port_in_use_and_free_again():
    with live_page("0", CITYSCAPES) as page:
        port = urlsplit(page.url).port
        with pytest.raises(InputError, match=rf"^Port {port} of 127\.0\.0\.1 is in use"), live_page(str(port), ()):
            pass
        _get(page)
    with pytest.raises(RuntimeError), live_page(str(port), CITYSCAPES) as page:
        assert _get(page)[0].status == 200
        raise RuntimeError
    with live_page(str(port), CITYSCAPES):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "page"]


def test_viewers_that_hang_or_vanish_do_not_hold_up_the_run_or_its_end(capfd, monkeypatch):
    """Each kind of bad viewer is there during the run and after it; none is ever cut off for its silence."""
    monkeypatch.setattr(runtime.page._Handler, "timeout", None)
    with ExitStack() as viewers:
        run = ExitStack()
        page = run.enter_context(live_page("0", CITYSCAPES))
        where = urlsplit(page.url)
        page.sink(_result(0, (512, 1024)))
        for request in (b"", b"GET /over", b"GET /overlay.jpg HTTP/1.0\r\nHost: localhost\r\n\r\n"):
            viewer = socket.create_connection((where.hostname, where.port))
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            viewer.sendall(request)  # and never reads
            viewers.callback(viewer.close)
        gone = socket.create_connection((where.hostname, where.port))
        gone.sendall(b"GET /overlay.jpg HTTP/1.0\r\nHost: localhost\r\n\r\n")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()  # with a reset
        for index in range(300):
            page.sink(_result(index))
        assert json.loads(_get(page, "/status.json")[1])["frames"] == 301
        end = threading.Thread(target=run.close, daemon=True)
        end.start()
        end.join(20)
        assert not end.is_alive(), "the end of the run waits for a viewer"
    assert capfd.readouterr().err == ""


def test_a_viewer_is_drawn_for_on_its_own_thread(page, monkeypatch):
    """While a picture is being drawn, however long that takes, the run's results are still taken."""
    drawing, go_on = threading.Event(), threading.Event()
    real = cv2.imencode

    def slow(*arguments):
        drawing.set()
        assert go_on.wait(20)
        return real(*arguments)

    monkeypatch.setattr(cv2, "imencode", slow)
    page.sink(_result(0))
    seen = []
    viewer = threading.Thread(target=lambda: seen.append(_get(page, "/overlay.jpg")))
    viewer.start()
    assert drawing.wait(20)
    for index in range(1, 50):
        page.sink(_result(index))
    assert json.loads(_get(page, "/status.json")[1])["frame"] == 49
    go_on.set()
    viewer.join(20)
    assert seen[0][0].status == 200


def test_more_viewers_than_there_is_room_for_are_turned_away(monkeypatch):
    monkeypatch.setattr(runtime.page, "MOST_VIEWERS", 2)
    with live_page("0", CITYSCAPES) as page:
        where = urlsplit(page.url)
        idle = [socket.create_connection((where.hostname, where.port)) for _ in range(2)]
        third = socket.create_connection((where.hostname, where.port), timeout=20)
        assert third.recv(1) == b"", "closed without an answer"
        for viewer in (*idle, third):
            viewer.close()


def test_the_rate_is_the_recent_one_and_falls_to_nothing():
    clock = [100.0]
    monitor = Monitor(CITYSCAPES, now=lambda: clock[0])
    for index in range(100):
        clock[0] += 0.1
        monitor.take(_result(index))
    assert monitor.fps == pytest.approx(10, rel=0.03)
    clock[0] += 2 * RATE_WINDOW_S
    assert monitor.fps == 0


@pytest.fixture
def command(tmp_path, monkeypatch):
    write_package(tmp_path / "package")
    clip = write_clip(tmp_path / "in.mp4", 5)
    return ["run", str(clip), "--package", str(tmp_path / "package"), "--page"]


def test_a_run_says_where_its_page_is(command, monkeypatch, capfd):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: Threshold())
    assert main([*command, "0"]) == 0
    said = capfd.readouterr()
    assert re.search(r"^live page: http://127\.0\.0\.1:\d+/$", said.out, re.MULTILINE) and said.err == ""


def test_a_run_whose_port_is_in_use(command, monkeypatch, capfd):
    monkeypatch.setattr(splitmerge.commands.run, "open_executor", lambda package, arguments: Threshold())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([*command, str(port)]) == 2
        assert capfd.readouterr().err == f"splitmerge: Port {port} of 127.0.0.1 is in use: name another with --page.\n"
    assert main([*command, "http://x"]) == 2
    assert "is no address" in capfd.readouterr().err
