"""The frame of every report: head, contents, sections, foot; one file, written whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from runtime.html.elements import Child, Element, element, sha256_source, text_of
from splitmerge import __version__
from splitmerge.files import new_file

__all__ = ["Section", "write_page"]


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own. `name` is its anchor."""

    name: str
    title: str
    content: Sequence[Child]


def write_page(path: Path, title: str, lead: Sequence[Child], sections: Sequence[Section]) -> None:
    """Write a report with `lead` above its sections. Raises InputError where there can be no file at `path`."""
    text = "<!doctype html>\n" + text_of(_page(title, lead, sections)) + "\n"
    with new_file(path) as temporary:
        # A path's undecodable bytes are lone surrogates in Python, which no encoding has.
        temporary.write_bytes(text.encode("utf-8", "replace"))


def _page(title: str, lead: Sequence[Child], sections: Sequence[Section]) -> Element:
    style, script = (files("runtime.html").joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    # Only this script may run, whatever else got into the page, and nothing may be fetched.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {sha256_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", style),
    )
    contents = [element("li", element("a", part.title, href=f"#{part.name}")) for part in sections]
    made = f"splitmerge {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %z}"
    body = element(
        "body",
        element("a", "To the content", class_="skip", href="#content"),
        element("header", element("h1", title)),
        element("nav", element("ul", *contents), aria_label="Sections"),
        element("main", *lead, *map(_section, sections), id="content", tabindex="-1"),
        element("footer", element("p", f"Made by {made}.")),
        element("script", script),
    )
    return element("html", head, body, lang="en")


def _section(part: Section) -> Element:
    heading = element("h2", part.title, id=f"{part.name}-title")
    return element("section", heading, *part.content, id=part.name, aria_labelledby=f"{part.name}-title")
