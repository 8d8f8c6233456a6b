"""The report of `splitmerge compare`: what was lost and whether it may be, where, and of which package."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.compare import Comparison
from runtime.html.charts import bars
from runtime.html.confusion import difference_map, heat_map, largest_confusions
from runtime.html.elements import Child, Element, element
from runtime.html.page import Section, write_page
from runtime.html.pictures import gallery, legend, swatch
from runtime.html.tables import Cell, facts_table, number, percent, points, table
from splitmerge.labels import IGNORE, THIN_CLASSES, LabelClass
from splitmerge.package import Package
from training.metrics import mean_of_known

__all__ = ["write_comparison"]

Scores = Mapping[str, Any]


def write_comparison(path: Path, result: Comparison, package: Package, facts: Mapping[str, Any]) -> None:
    """Write the report to `path`. `facts` are compare.json's beside the scores.

    Every cell's `data-value` is the number as compare.json has it. Raises InputError where there can be no file.
    """
    scores = result.to_json() | dict(facts)
    names = [entry.name for entry in result.classes]
    sections = [
        Section("scores", "Scores", [_means(result, scores)]),
        Section("classes", "Classes", [_classes(result, scores)]),
        Section("confusion", "Confusion", _confusion(names, result)),
        Section("frames", "Worst frames", _frames(result)),
        Section("package", "Package and engine", _package(package, facts)),
    ]
    write_page(
        path, f"Engine against PyTorch: {package.manifest.model}", [_verdict(scores), _agreement(scores)], sections
    )


def _verdict(scores: Scores) -> Element:
    drop, allowed = scores["miou_drop_points"] or 0.0, scores["max_iou_drop_points"]
    passed = not drop > allowed
    lost = f"loses {drop:.3f}" if drop >= 0 else f"gains {-drop:.3f}"
    return element(
        "p",
        element("strong", "Passed." if passed else "Failed."),
        f" The engine {lost} points of mIoU against PyTorch; {allowed:g} may be lost.",
        id="verdict",
        class_="passed" if passed else "failed",
        data_value=scores["miou_drop_points"],
    )


def _agreement(scores: Scores) -> Element:
    differing, pixels, images = scores["pixels_differing"], scores["pixels"], scores["images"]
    return element(
        "p",
        "Engine and reference give the same label on ",
        element(
            "strong", f"{100 * scores['pixel_agreement']:.4f} %", id="agreement", data_value=scores["pixel_agreement"]
        ),
        f" of the pixels: {differing:,} of {pixels:,} differ, on {images} image{'s' * (images != 1)} of "
        f"{scores['data']}, {scores['precision']} on {scores['backend']}.",
    )


def _means(result: Comparison, scores: Scores) -> Element:
    thin = [index for index, entry in enumerate(result.classes) if entry.name in THIN_CLASSES]
    sides = [("reference", result.reference), ("engine", result.engine)]
    sides += [("multi_scale", result.multi_scale)] if result.multi_scale else []
    rows = [("mean IoU, %", [scores[side]["miou"] for side, _ in sides])]
    if thin:
        rows.append(("mean IoU of the thin classes, %", [mean_of_known(score.iou[thin]) for _, score in sides]))
    rows.append(("mean boundary IoU, %", [score.boundary_miou for _, score in sides]))
    cells = [
        [Cell([name]), percent(values[0]), percent(values[1]), _change(values), *map(percent, values[2:])]
        for name, values in rows
    ]
    times = [scores[side]["ms_per_frame"] for side, _ in sides]
    shown = [number(value, f"{value:,.1f}") for value in times]
    cells.append([Cell(["median time of a frame, ms"]), *shown[:2], Cell([]), *shown[2:]])
    columns = ["", "reference (PyTorch)", "engine", "difference, points"]
    columns += ["reference, several scales"] if result.multi_scale else []
    caption = "Means over the classes that occur; times as they were in this run, of one frame after the other"
    return table("means", caption, columns, cells, kind="plain")


def _classes(result: Comparison, scores: Scores) -> Element:
    truth = result.reference.confusion.sum(axis=1)
    rows = [
        _class_row(entry, scores, float(share))
        for entry, share in zip(result.classes, truth / truth.sum(), strict=True)
    ]
    columns: list[Child] = ["class", "pixels, %"]
    for kind in ("IoU", "boundary IoU"):
        columns += [f"{kind}, reference, %", f"{kind}, engine, %", f"{kind}, difference, points"]
        columns += ["IoU, several scales, %"] if result.multi_scale and kind == "IoU" else []
        columns.append(element("span", f"{kind}, reference above engine", class_="small"))
    caption = (
        "IoU and boundary IoU of each class; bars from 0 to 100 %. Boundary IoU counts the pixels near a contour alone "
        "(Cheng et al., CVPR 2021)."
    )
    return table("per-class", caption, columns, rows)


def _class_row(entry: LabelClass, scores: Scores, share: float) -> list[Cell]:
    label: list[Child] = [swatch(entry), element("span", entry.name)]
    if entry.name in THIN_CLASSES:
        label += [" ", element("span", "thin", class_="badge")]
    ious, boundaries = (
        [scores[side][kind][entry.name] for side in ("reference", "engine", "multi_scale") if side in scores]
        for kind in ("iou", "boundary_iou")
    )
    return [
        Cell(label, entry.name),
        percent(share),
        *map(percent, ious[:2]),
        _change(ious),
        *map(percent, ious[2:]),
        Cell([bars(ious[:2])], ious[1]),
        *map(percent, boundaries[:2]),
        _change(boundaries),
        Cell([bars(boundaries[:2])], boundaries[1]),
    ]


def _change(values: Sequence[float | None]) -> Cell:
    expected, found = values[:2]
    return points(None if expected is None or found is None else found - expected)


def _confusion(names: Sequence[str], result: Comparison) -> list[Child]:
    reference, engine = result.reference.confusion, result.engine.confusion
    note = "Rows are the ground truth, columns what it was taken for; numbers are percent of the row's pixels."
    content: list[Child] = [
        element("p", note),
        heat_map("confusion-engine", "Confusion of the engine", names, engine),
        largest_confusions("confusions", names, reference, engine),
    ]
    if np.array_equal(reference, engine):
        return [*content, element("p", "The reference's confusion is the same, pixel for pixel.", id="same-confusion")]
    caption = (
        "Engine less reference, in points of the row's pixels; blue where the engine does better, orange where worse"
    )
    return [
        *content,
        element(
            "details",
            element("summary", "What differs from the reference's confusion"),
            difference_map("confusion-difference", caption, names, reference, engine),
        ),
        element(
            "details",
            element("summary", "The reference's confusion"),
            heat_map("confusion-reference", "Confusion of the reference", names, reference),
        ),
    ]


def _frames(result: Comparison) -> list[Child]:
    differing, wrong = result.worst.differing, result.worst.wrong
    content: list[Child] = [element("h3", "Where the engine differs most from the reference")]
    content += gallery(differing, result.classes) or [element("p", "It differs nowhere.")]
    content.append(element("h3", "Where the engine is most wrong"))
    content += gallery(wrong, result.classes) or [element("p", "It is wrong nowhere.")]
    unscored = any((example.truth == IGNORE).any() for example in (*differing, *wrong))
    return [legend(result.classes, unscored), *content]


def _package(package: Package, facts: Mapping[str, Any]) -> list[Child]:
    manifest, contract = package.manifest, package.manifest.input
    cut = manifest.cut
    about = [
        ("folder", str(package.folder)),
        ("model", f"{manifest.model}, width {manifest.model_width}, {len(manifest.classes)} classes"),
        ("frames", f"{contract.height}x{contract.width} {contract.dtype} {contract.layout} {contract.colour}"),
        ("padded", f"{contract.padded_height}x{contract.padded_width}"),
        ("cut", f"level {cut.level}, {cut.batches} split batches" if cut else "none, one graph"),
        ("form", manifest.form),
        ("output stride", str(manifest.output_stride or "the network's own")),
        *((f"made with {name}", version) for name, version in manifest.versions.items()),
    ]
    run = [(key.replace("_", " "), _text(value)) for key, value in facts.items()]
    graphs = package.parts(str(facts["precision"])).values()
    hashes = [(graph.file, graph.sha256) for graph in graphs]
    hashes += [
        (package.reference_path.name, manifest.reference_sha256),
        ("preprocessing", manifest.preprocessing_sha256),
    ]
    return [
        facts_table("about-package", "The package", about),
        facts_table("about-run", "This comparison", run),
        facts_table("hashes", "SHA-256", hashes),
    ]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
