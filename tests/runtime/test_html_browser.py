"""Reports in a browser, as files: nothing is fetched or refused, nothing overflows, pictures decode, tables sort."""

import pytest
from clips import write_package
from test_compare import Listed
from test_html import CLASSES, FACTS, NASTY, make_report
from webdriver import driven

from benchmarks.report import bench_report
from runtime.html.comparison import write_comparison
from splitmerge.labels import LabelClass

WIDTHS = (1280, 400)

OVERFLOWING = """
const wide = document.documentElement.clientWidth, found = [];
for (const node of document.querySelectorAll("body *")) {
  const box = node.getBoundingClientRect();
  if (!node.matches(".scroll *, .skip") && box.width && box.right > wide + 1) found.push(node.outerHTML.slice(0, 120));
}
return [document.documentElement.scrollWidth - wide, found];
"""
COLUMN = """
const [name, column] = arguments;
return [...document.getElementById(name).tBodies[0].rows].map(row => row.cells[column].dataset.value ?? null);
"""
PRESS = """
const [name, column] = arguments, heading = document.getElementById(name).tHead.rows[0].cells[column];
heading.querySelector("button").click();
return heading.getAttribute("aria-sort");
"""
CONTRASTS = """
const values = text => text.match(/[\\d.]+/g).map(Number);
const light = rgb => rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
function behind(node) {
  const layers = [];
  for (; node; node = node.parentElement) layers.push(values(getComputedStyle(node).backgroundColor));
  return layers.reverse().reduce((below, [r, g, b, a = 1]) => below.map((v, i) => v * (1 - a) + a * [r, g, b][i]),
    [255, 255, 255]);
}
return [...document.querySelectorAll("p, th, td, caption, a, h2, summary, figcaption, strong, .badge")].map(node => {
  const [a, b] = [values(getComputedStyle(node).color).slice(0, 3), behind(node)].map(light);
  return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.outerHTML.slice(0, 120)];
}).sort((a, b) => a[0] - b[0])[0];
"""


@pytest.fixture(scope="module")
def browser():
    with driven() as browser:
        yield browser


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Two networks, three contestants at three sizes, one of them left out at the last."""
    rows = []
    for network, place in (("smp18", 0), ("<b>fcn</b>", 1)):
        for size in (64, 128, 256):
            for rank, contestant in enumerate(("splitmerge", NASTY, "a name that is as long as one may get" * 2)):
                row = {
                    "network": network,
                    "width": 16,
                    "height": size,
                    "width_pixels": 2 * size,
                    "contestant": contestant,
                }
                cost = {"median_ms": (1 + rank + place) * size**2 / 7, "peak_mib": (2 + rank) * size}
                rows.append(row | ({"skipped": f"needs {size} <GiB>"} if size == 256 and rank else cost))
    path = tmp_path_factory.mktemp("bench") / "bench.html"
    bench_report({"machine": {"cores": 2}, "command": "bench", "rows": rows}, path)
    return path


@pytest.fixture(params=["comparison", "bench"])
def page(request, browser):
    """Either report, open in the browser, and its address."""
    made = request.getfixturevalue(request.param)
    address = (made if request.param == "bench" else made[0]).as_uri()
    browser.logged(), browser.fetched()
    browser.open(address)
    return browser, address


def test_nothing_is_fetched_logged_or_run(page):
    browser, address = page
    assert [url for url in browser.fetched() if not url.startswith("data:")] == [address]
    assert browser.logged() == []
    assert browser.ask("return document.scripts.length") == 1
    assert NASTY in browser.ask("return document.body.innerText")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_part_is_wider_than_the_window(page, width):
    browser, _ = page
    browser.resize(width)
    browser.ask("for (const each of document.querySelectorAll('details')) each.open = true")
    assert browser.ask("return document.documentElement.clientWidth") == width
    assert browser.ask(OVERFLOWING) == [0, []]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(page, scheme):
    """WCAG 2.2's contrast of 4.5, computed by its formula from what the browser paints."""
    browser, _ = page
    browser.devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    paper = browser.ask("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    browser.ask("for (const each of document.querySelectorAll('details')) each.open = true")
    contrast, where = browser.ask(CONTRASTS)
    assert contrast >= 4.5, where


def test_numbers_pictures_and_names_are_there(browser, comparison):
    path, scores, _ = comparison
    browser.open(path.as_uri())
    names = browser.ask(COLUMN, "per-class", 0)
    assert names == [entry.name for entry in CLASSES]
    for column, side in ((2, "reference"), (3, "engine")):
        shown = [None if value is None else float(value) for value in browser.ask(COLUMN, "per-class", column)]
        assert shown == list(scores[side]["iou"].values())
    sizes = browser.ask(
        "return [...document.images].map(each => [each.complete, each.naturalWidth, each.naturalHeight])"
    )
    assert sizes == [[True, 36, 24]] * 24


def test_a_heading_sorts_and_unsorts(browser, comparison):
    path, scores, _ = comparison
    browser.open(path.as_uri())
    given = browser.ask(COLUMN, "per-class", 3)
    known = sorted(value for value in scores["engine"]["iou"].values() if value is not None)
    assert browser.ask(PRESS, "per-class", 3) == "ascending"
    *values, missing = browser.ask(COLUMN, "per-class", 3)
    assert [float(value) for value in values] == known and missing is None
    assert browser.ask(PRESS, "per-class", 3) == "descending"
    *values, missing = browser.ask(COLUMN, "per-class", 3)
    assert [float(value) for value in values] == known[::-1] and missing is None
    assert browser.ask(PRESS, "per-class", 3) is None
    assert browser.ask(COLUMN, "per-class", 3) == given
    assert browser.ask(PRESS, "per-class", 0) == "ascending"
    assert browser.ask(COLUMN, "per-class", 0)[-2:] == ["road", "sky"]


def test_curves_are_drawn_inside_their_frame(browser, bench):
    browser.open(bench.as_uri())
    drawn = browser.ask("""return [...document.querySelectorAll("svg.curves")].map(svg => {
      const frame = svg.getBoundingClientRect(), marks = [...svg.querySelectorAll("path")];
      return [marks.length, marks.every(mark => { const box = mark.getBoundingClientRect();
        return box.width > 4 && box.left > frame.left && box.right < frame.right
          && box.top > frame.top && box.bottom < frame.bottom; })]; })""")
    assert drawn == [[7, True]] * 4


def test_many_classes_are_no_wider(browser, tmp_path):
    classes = tuple(LabelClass(f"class {index} of {'x' * 40}", (index, 0, 0)) for index in range(150))
    result = Listed(3, classes=150).compare(classes, worst=1)
    write_comparison(tmp_path / "r.html", result, write_package(tmp_path / "p"), FACTS)
    browser.open((tmp_path / "r.html").as_uri())
    browser.resize(400)
    assert browser.ask(OVERFLOWING) == [0, []]
    assert browser.ask("return document.querySelectorAll('#confusion-engine td').length") == 150**2
