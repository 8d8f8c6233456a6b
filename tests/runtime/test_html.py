"""Reports as HTML, as they lie in the file: numbers, escaping, what a reader who sees nothing is told."""

import hashlib
import json

import numpy as np
import pytest
from clips import write_package
from markup import read_page
from test_compare import THREE, Listed

from runtime.examples import Example, Worst
from runtime.html.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, curves
from runtime.html.comparison import write_comparison
from runtime.html.elements import element, text_of
from runtime.html.page import write_page
from runtime.html.tables import points
from splitmerge.labels import LabelClass

NASTY = "<script>alert(1)</script>&amp;\"'"
CLASSES = (*THREE, LabelClass(NASTY, (1, 2, 3)), LabelClass("never seen", (0, 60, 100)))
FACTS = {
    "backend": "onnxruntime",
    "precision": "fp32",
    "model": "smp18",
    "data": "<i>data</i>",
    "size": [64, 128],
    "max_iou_drop_points": 0.1,
}


def make_report(folder):
    """A comparison's report with nasty names, and what compare.json would say."""
    package = write_package(folder / "<img src=x onerror=alert(2)>")
    result = Listed(8, classes=4).compare(CLASSES, worst=2)
    write_comparison(folder / "report.html", result, package, FACTS)
    return folder / "report.html", json.loads(json.dumps(result.to_json() | FACTS)), result


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path, scores, result = make_report(tmp_path_factory.mktemp("report"))
    return read_page(path), scores, result


def _rows(page, name):
    """Rows of a table's body: a list of (text, exact value) each."""
    (body,) = page.by_id(name).all("tbody")
    cells = [[n for n in row.children if n.name in ("th", "td")] for row in body.all("tr")]
    return [[(cell.text, cell.attributes.get("data-value")) for cell in row] for row in cells]


def test_the_classes_have_compare_jsons_numbers(report):
    page, scores, _ = report
    rows = _rows(page, "per-class")
    assert [row[0][1] for row in rows] == [entry.name for entry in CLASSES]
    for (label, name), _share, *cells in rows:
        assert label.startswith(name) and (label == f"{name} thin") == (name == "pole")
        for kind, (reference, engine, change, _) in (("iou", cells[:4]), ("boundary_iou", cells[4:])):
            expected, found = (scores[side][kind][name] for side in ("reference", "engine"))
            if name == "never seen":
                assert reference == engine == change == ("-", None)
                continue
            assert (float(reference[1]), float(engine[1])) == (expected, found)
            assert float(change[1]) == found - expected
            assert (reference[0], engine[0]) == (f"{100 * expected:.2f}", f"{100 * found:.2f}")
            assert change[0] == f"{100 * (found - expected):+.3f}"


def test_means_agreement_and_gate(report):
    page, scores, _ = report
    means = {row[0][0]: row[1:] for row in _rows(page, "means")}
    for name, key in (("mean IoU, %", "miou"), ("median time of a frame, ms", "ms_per_frame")):
        assert [float(value) for _, value in means[name][:2]] == [scores[s][key] for s in ("reference", "engine")]
    boundary = [float(value) for _, value in means["mean boundary IoU, %"][:2]]
    assert boundary == [scores["boundary_iou"][side] for side in ("reference", "engine")]
    assert float(page.by_id("agreement").attributes["data-value"]) == scores["pixel_agreement"]
    verdict = page.by_id("verdict")
    assert float(verdict.attributes["data-value"]) == scores["miou_drop_points"]
    assert verdict.text.startswith("Passed." if scores["miou_drop_points"] <= 0.1 else "Failed.")


@pytest.mark.parametrize(("allowed", "word"), [(0.0, "Failed."), (100.0, "Passed.")])
def test_the_verdict_is_the_gates(tmp_path, allowed, word):
    data = Listed()
    data.reference = [labels.copy() for labels in data.truth]
    write_comparison(
        tmp_path / "r.html", data.compare(), write_package(tmp_path / "p"), FACTS | {"max_iou_drop_points": allowed}
    )
    assert read_page(tmp_path / "r.html").by_id("verdict").text.startswith(word)


def test_confusions_are_counted_by_truth_and_prediction(report):
    page, _, result = report
    for name, counts in (("reference", result.reference.confusion), ("engine", result.engine.confusion)):
        rows = [[int(value) for _, value in row[1:]] for row in _rows(page, f"confusion-{name}")]
        assert np.array_equal(rows, counts)
        texts = [text for text, _ in _rows(page, f"confusion-{name}")[0][1:4]]
        assert texts == [f"{100 * n / counts[0].sum():.0f}" for n in counts[0][:3]]
    shares = [s.confusion / np.maximum(1, s.confusion.sum(1, keepdims=True)) for s in (result.reference, result.engine)]
    change = [[float(value) for _, value in row[1:]] for row in _rows(page, "confusion-difference")]
    np.testing.assert_allclose(change, shares[1] - shares[0], atol=1e-12)
    cells = [cell for row in page.by_id("confusion-difference").all("tr") for cell in row.all("td")]
    for index, cell in enumerate(cells):
        value = float(cell.attributes["data-value"])
        on_diagonal = index // len(CLASSES) == index % len(CLASSES)
        expected = "" if not value else "better" if (value > 0) == on_diagonal else "worse"
        assert (cell.attributes.get("class") or "").removeprefix("heat ") == expected
    worst = _rows(page, "confusions")[0]
    beside = result.engine.confusion * (1 - np.eye(len(CLASSES), dtype=int))
    truth, taken = ([entry.name for entry in CLASSES].index(cell[1]) for cell in worst[:2])
    assert int(worst[2][1]) == beside.max() == beside[truth, taken]


def test_no_text_becomes_markup(report):
    page, _, _ = report
    assert len(list(page.all("script"))) == 1
    assert not list(page.all("i")) and all("onerror" not in node.attributes for node in page.everything())
    for text in (NASTY, "<i>data</i>", "<img src=x onerror=alert(2)>"):
        assert text in page.text


def test_nothing_comes_from_elsewhere(report):
    page, _, _ = report
    for node in page.everything():
        for key in ("src", "href", "data", "srcset", "poster", "action"):
            assert node.attributes.get(key, "#").startswith(("#", "data:")), node.attributes[key][:80]
    assert "url(" not in page.text and "@import" not in page.text
    (policy,) = (n for n in page.all("meta") if n.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_it_can_be_read_aloud(report):
    page, _, _ = report
    headings = [node for node in page.all("th") if node.text]
    assert headings and all(node.attributes.get("scope") in ("row", "col") for node in page.all("th"))
    assert all(len(list(each.all("caption"))) == 1 for each in page.all("table"))
    pictures = list(page.all("img"))
    assert len(pictures) == 2 * 2 * 6 and all(node.attributes["alt"] for node in pictures)
    names = [node.attributes["id"] for node in page.everything() if "id" in node.attributes]
    assert len(set(names)) == len(names)
    pointed = {
        node.attributes[key] for node in page.everything() for key in ("aria-labelledby",) if key in node.attributes
    }
    pointed |= {node.attributes["href"][1:] for node in page.all("a")}
    assert pointed <= set(names)
    assert next(page.all("html")).attributes["lang"] == "en"


def test_hashes_and_facts_of_the_package(report):
    page, _, _ = report
    hashes = {row[0][0]: row[1][0] for row in _rows(page, "hashes")}
    assert hashes["model.onnx"] == hashlib.sha256(b"no graph").hexdigest()
    facts = {row[0][0]: row[1][0] for row in _rows(page, "about-run")}
    assert (facts["precision"], facts["backend"], facts["size"]) == ("fp32", "onnxruntime", "64, 128")
    about = {row[0][0]: row[1][0] for row in _rows(page, "about-package")}
    assert about["cut"] == "level 2, 16 split batches" and about["model"] == "smp18, width 4, 19 classes"


def test_the_worst_are_those_of_sorting_all():
    data = Listed(9, wrong=0.3)
    rng = np.random.default_rng(3)
    # Each image with an error rate of its own, so that the order is not that of the data.
    data.engine = [data._spoil(rng, t, rate, 3) for t, rate in zip(data.truth, rng.permutation(9) / 10, strict=True)]
    worst = data.compare(worst=3).worst
    differing = [int((a != b).sum()) for a, b in zip(data.reference, data.engine, strict=True)]
    scored = [t != 255 for t in data.truth]
    wrong = [(e != t)[s].mean() for e, t, s in zip(data.engine, data.truth, scored, strict=True)]
    assert [e.index for e in worst.differing] == sorted(range(9), key=lambda i: -differing[i])[:3]
    assert [e.index for e in worst.wrong] == sorted(range(9), key=lambda i: -wrong[i])[:3]
    first = worst.differing[0]
    assert first.differing == max(differing) and first.wrong == (first.engine != first.truth)[first.truth != 255].sum()


def test_of_equals_the_first_stays_and_the_blameless_go():
    plain, other = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    worst = Worst(2)
    for index in range(5):
        worst.add(Example(index, np.zeros((2, 2, 3), np.uint8), plain, plain, plain if index == 2 else other))
    assert [example.index for example in worst.differing] == [0, 1]
    blameless = Worst(2)
    blameless.add(Example(0, np.zeros((2, 2, 3), np.uint8), plain, plain, plain))
    assert blameless.differing == blameless.wrong == []


def test_curves_are_straight_where_cost_grows_by_a_power():
    """y = 3 x^2 on logarithmic axes: equal steps, and a mark at each point."""
    drawn = curves("c", "t", [Series("<a>", [(x, 3.0 * x**2, f"{x}") for x in (100, 10, 1000)])], [(10, "10")], "x")
    (line,) = drawn.iter("polyline")
    xs, ys = zip(*(map(float, point.split(",")) for point in line.get("points").split()), strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02) and xs[0] < xs[1]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.02) and ys[0] > ys[1]
    # A mark on the chart's edge would be cut in half.
    assert xs[0] > LEFT + 5 and xs[2] < WIDTH - RIGHT - 5 and ys[2] > TOP + 5 and ys[0] < HEIGHT - BOTTOM - 5
    assert [title.text for title in drawn.iter("title")] == ["<a>, 10", "<a>, 100", "<a>, 1000"]
    labels = {text.text: float(text.get("y")) for text in drawn.iter("text")}
    assert labels["1,000"] - labels["100,000"] == pytest.approx(ys[0] - ys[1], abs=0.05)


def test_a_curve_of_one_point_has_room():
    drawn = curves("c", "t", [Series("a", [(10, 5.0, "")])], [(10, "10")], "x")
    (line,) = drawn.iter("polyline")
    x, y = map(float, line.get("points").split(","))
    assert 100 < x < 600 and 20 < y < 300


def test_texts_that_html_cannot_hold(tmp_path):
    assert text_of(element("p", "a\x00b\x1bc\td")) == "<p>a?b?c\td</p>"
    write_page(tmp_path / "p.html", "\udcff", [], [])
    assert "?" in read_page(tmp_path / "p.html").text


def test_a_loss_of_nothing_has_no_sign():
    assert points(-1e-9).content == ["0.000"] and points(-0.001).content == ["-0.100"]
