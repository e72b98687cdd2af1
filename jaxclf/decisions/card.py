"""The README.md of a handed-over model: what it is, its figures, and what it must not decide
alone."""

from collections.abc import Mapping
from typing import Any

from jaxclf.decisions.report import table


def card(
    name: str, encoder: str, report: Mapping[str, Any], rule: str, sizes: Mapping[str, int]
) -> str:
    """Markdown. sizes: examples of each split."""
    counts = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
    origin = "set by hand" if rule == "fixed" else "fitted on the validation split"
    return f"""# {name}

A multi-label text classifier: the encoder `{encoder}` fine-tuned with jaxclf. Examples: {counts}.
Thresholds: rule `{rule}`, {origin}; the test split fitted nothing.

```
{table(report["test"], "test")}
```

    import jaxclf
    classifier = jaxclf.load("this/folder")
    classifier.predict(["a text"])

A person decides: the labels help to find what should be read first. They are no diagnosis and no
judgement of a person, and a figure above holds for texts like those of its test split alone.
"""
