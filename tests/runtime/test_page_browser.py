"""The live page of several sources in a browser: all of them side by side, or the one that was picked."""

import re
import shutil
import subprocess

import pytest
from test_page import _result

from runtime.page import live_page
from splitmerge.labels import CITYSCAPES

SIZE = (256, 512)


@pytest.fixture
def chromium():
    return shutil.which("chromium") or pytest.skip("chromium is not installed: apt-get install chromium")


def _seen(chromium, url):
    """The page as it is after some looks at the run, without its template and script."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([chromium, *options, url], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.partition("<template")[0]


def _fields(html, name):
    return re.findall(rf'class="{name}"[^>]*>([^<]*)<', html)


def test_all_sources_or_the_picked_one(chromium):
    with live_page("0", CITYSCAPES, 0.2, ["cam-1", "drive", "<b>"]) as page:
        for index in range(5):
            page.sinks["cam-1"](_result(index, SIZE))
        page.sinks["drive"](_result(99, SIZE, dropped=3))
        page.end("drive", failed=True)
        grid, picked = _seen(chromium, page.url), _seen(chromium, f"{page.url}#drive")
    for html in (grid, picked):
        assert _fields(html, "source") == ["cam-1", "drive", "&lt;b&gt;"]
        assert _fields(html, "frames") == ["5", "1", "0"] and _fields(html, "dropped") == ["0", "3", "0"]
        assert _fields(html, "state") == ["", "failed", ""]
        assert len(re.findall(r'class="class( absent)?"', html)) == 3 * len(CITYSCAPES)
    assert '<body class="grid">' in grid and 'hidden=""' not in grid.partition('<div id="sources">')[2]
    shown = "overlay.jpg?source=drive&amp;n=1"
    assert re.findall(r'src="([^"]*)"', grid) == ["overlay.jpg?source=cam-1&amp;n=5", shown]
    assert '<body class="picked">' in picked
    assert re.findall(r'<section data-source="([^"]*)"[^>]*hidden=""', picked) == ["cam-1", "&lt;b&gt;"]
    assert re.findall(r'src="([^"]*)"', picked) == [shown]


def test_one_source_is_shown_alone(chromium):
    with live_page("0", CITYSCAPES, 0.2) as page:
        page.sink(_result(7, SIZE))
        html = _seen(chromium, page.url)
    assert '<body class="only">' in html and _fields(html, "frames") == ["1"]
    assert re.findall(r'src="([^"]*)"', html) == ["overlay.jpg?source=source&amp;n=1"]
