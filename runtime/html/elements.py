"""HTML and SVG elements as trees of the standard library's.

A string is text wherever it is given: its markup characters are escaped when the tree is written, so that a class name
or a path cannot become part of the page.
"""

import base64
import hashlib
import re
from typing import TypeAlias
from xml.etree import ElementTree

__all__ = ["Child", "Element", "element", "sha256_source", "text_of"]

Element: TypeAlias = ElementTree.Element
Child: TypeAlias = Element | str | None
Attribute: TypeAlias = str | float | None

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def element(name: str, /, *children: Child, **attributes: Attribute) -> Element:
    """An element with its children in order; None is left out, among children as among attributes.

    An attribute's `_` stands for `-`, and one at the end is dropped: `class_`, `for_`, `data_value`.
    """
    made = ElementTree.Element(name)
    for key, value in attributes.items():
        if value is not None:
            made.set(key.rstrip("_").replace("_", "-"), str(value))
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            if last is None:
                made.text = (made.text or "") + child
            else:
                last.tail = (last.tail or "") + child
        elif child is not None:
            made.append(child)
            last = child
    return made


def text_of(tree: Element) -> str:
    """The tree as HTML. Control characters, which HTML cannot hold, become question marks."""
    written = ElementTree.tostring(tree, encoding="unicode", method="html")
    return _CONTROLS.sub("?", written)


def sha256_source(text: str) -> str:
    """An inline script's name in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
