"""HTML pages and Markdown from the templates in templates/."""

import base64
import functools
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from jaxclf.decisions.score_tables import format_score, to_markdown
from jaxclf.files.markdown import escape_markdown

FOLDER = Path(__file__).parent
SCALE = 1.6  # pixels of an image file for each pixel on the page


class Picture(NamedTuple):
    """A figure on a page: the macro `figure` of macros.html takes it."""

    title: str
    alt: str = ""  # the alternative text
    finding: str = ""  # what the figure shows
    caption: str = ""  # how to read it
    png: bytes = b""
    file: str = ""  # of its data
    missing: str = ""  # the reason why there is no image


def render(template: str, **values: Any) -> str:
    """Fill in a template of templates/.

    Values are escaped in every template but `.md`. Pages extend `base.html`, which takes `title`,
    `statement` and `sections` (id -> heading); the template has a block for each id. Raises
    jinja2.UndefinedError if a value is missing.
    """
    text = ENVIRONMENT.get_template(template).render(values)
    return text.encode("utf-8", "replace").decode("utf-8")  # a label may hold a lone surrogate


def data_url(png: bytes) -> str:
    """A PNG image as the source of an `<img>`."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def page_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG image on the page, in pixels."""
    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))
    return round(width / SCALE), round(height / SCALE)


STYLE, SCRIPT = (
    (FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
)
ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=jinja2.select_autoescape(disabled_extensions=("md",), default=True),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {
    "style": Markup(STYLE),
    "script": Markup(SCRIPT),
    "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}",
    "version": version("jaxclf"),
}
ENVIRONMENT.filters |= {
    "line": escape_markdown,
    "number": format_score,
    "markdown": to_markdown,
    "json": functools.partial(json.dumps, indent=2, ensure_ascii=False),
    "data_url": data_url,
    "page_size": page_size,
}
