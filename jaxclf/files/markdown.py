"""Text in Markdown that stays text."""

import re

from jaxclf.errors import escape_controls

# An underscore within a word is no markup; a dot and a colon are where a link begins.
MARKUP = re.compile(
    r"[\\`*\[\]|&<>~@]|^#|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", ":": "&#58;", ".": "&#46;"}


def escape_markdown(text: str) -> str:
    """Text as one line of Markdown or a cell of a table: no markup, link or mention."""
    line = escape_controls(" ".join(text.split()))
    return MARKUP.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), line)
