"""What splits of a data set must not share."""

from jaxclf.types import Examples


def shared_texts(one: Examples, other: Examples) -> int:
    """Texts of `other` that stand in `one` too, but for case and white space: a test of memory,
    not of skill."""
    seen = {_plain(text) for text in one.texts}
    return sum(_plain(text) in seen for text in other.texts)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
