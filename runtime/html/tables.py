"""Tables that can be read aloud: caption, scopes, and the exact number behind each rounded one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.html.elements import Child, Element, element

__all__ = ["MISSING", "Cell", "facts_table", "number", "percent", "points", "scrolling", "table"]

MISSING = "-"
"""What stands where there is no number."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the value that it is sorted by, None for one that has none and sorts last."""

    content: Sequence[Child]
    value: float | str | None = None
    style: str | None = None
    kind: str | None = None


def percent(share: float | None, digits: int = 2) -> Cell:
    """A share of 0..1 in percent."""
    return _number(share, f"{100 * (share or 0):.{digits}f}")


def points(share: float | None) -> Cell:
    """A difference of two shares of 0..1 in points, with its sign."""
    # A tiny loss must not read "-0.000", as if it were one.
    text = f"{100 * (share or 0):+.3f}"
    return _number(share, "0.000" if float(text) == 0 else text)


def number(value: float | None, text: str) -> Cell:
    """A number that is shown as `text`."""
    return _number(value, text)


def table(
    name: str,
    caption: str,
    columns: Sequence[Child],
    rows: Sequence[Sequence[Cell]],
    foot: Sequence[Sequence[Cell]] = (),
    kind: str = "sortable",
) -> Element:
    """A table in a box that scrolls by itself. The first cell of each row is its heading; `foot` is never sorted.

    `kind` is its class: with `sortable` the page's script makes its column headings buttons.
    """
    numeric = [
        bool(rows) and all((row[at].kind or "").startswith("number") for row in rows) for at in range(len(columns))
    ]
    headings = [
        element("th", column, scope="col", class_="number" if right else None)
        for column, right in zip(columns, numeric, strict=True)
    ]
    made = element(
        "table",
        element("caption", element("span", caption), id=f"{name}-caption"),
        element("thead", element("tr", *headings)),
        element("tbody", *map(_row, rows)),
        element("tfoot", *map(_row, foot)) if foot else None,
        class_=kind,
        id=name,
    )
    return scrolling(made, f"{name}-caption")


def facts_table(name: str, caption: str, facts: Sequence[tuple[str, str]]) -> Element:
    """Names and what they stand for, in two columns without headings."""
    rows = [element("tr", element("th", key, scope="row"), element("td", value)) for key, value in facts]
    made = element(
        "table",
        element("caption", element("span", caption), id=f"{name}-caption"),
        element("tbody", *rows),
        class_="facts",
        id=name,
    )
    return scrolling(made, f"{name}-caption")


def scrolling(content: Element, labelled_by: str) -> Element:
    """A box that scrolls sideways where the window is narrow, by keys as well."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_labelledby=labelled_by)


def _number(value: float | None, text: str) -> Cell:
    known = value is not None and math.isfinite(value)
    return Cell([text if known else MISSING], value if known else None, kind="number")


def _row(cells: Sequence[Cell]) -> Element:
    first, *others = cells
    value = None if first.value is None else str(first.value)
    return element(
        "tr",
        element("th", *first.content, scope="row", data_value=value, style=first.style, class_=first.kind),
        *map(_cell, others),
    )


def _cell(cell: Cell) -> Element:
    value = None if cell.value is None else str(cell.value)
    return element("td", *cell.content, data_value=value, style=cell.style, class_=cell.kind)
