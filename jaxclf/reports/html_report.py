"""report.html: a finished run on one page that needs no network, with its pictures in plots/.

Everything is read from the run folder. No text of a user stands on the page unless it is given.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf import __version__
from jaxclf.decisions import members
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.inference.cascade import summary
from jaxclf.reports import sections
from jaxclf.reports.figures.pictures import pictures, write_whole
from jaxclf.reports.sections import HardExample, box, details, escape, section
from jaxclf.reports.tables import members_table, to_markdown
from jaxclf.types import Predictions

HARDEST = 12  # examples shown


def write_page(
    out: Path, lengths: np.ndarray | None = None, texts: Sequence[str] | None = None
) -> Path:
    """Write report.html and plots/ into the folder of a finished run; the page's path.

    lengths: tokens of each test text, for the picture of errors by length.
    texts: the test texts, for the hardest examples; without them only ids are shown.
    Raises DataError where the folder holds no finished run.
    """
    report, listed = _read(out, "report.json"), _read(out, "labels.json")
    if not report or not listed:
        raise DataError(f"{out}: no report.json or labels.json; is it a finished run's folder?")
    names = tuple(listed)
    found = {split: load_predictions(out / "predictions" / f"{split}.npz") for split in report}
    for given in (lengths, texts):
        if given is not None and len(given) != len(found["test"].ids):
            raise ValueError("lengths and texts must be those of the test split, row by row")
    cuts = np.array([report["test"]["labels"][name]["threshold"] for name in names], np.float64)
    hard = hardest(found["test"], decide(found["test"].probs, cuts), names, texts)
    config, record = _read(out, "config.json"), _read(out, "thresholds.json")
    sizes = {split: len(part.ids) for split, part in found.items()}
    parts = {
        "headline": ("Figures", sections.headline(report, sizes)),
        "thresholds": ("Thresholds", sections.thresholds(report, record)),
        "diagnosis": ("What the figures say", sections.sentences(_read(out, "diagnosis.json"))),
        **_of_several(out),
        "labels": ("Labels", sections.labels(report["test"], record)),
        "pictures": ("Pictures", pictures(out, found, cuts, names, lengths)),
        "hardest": ("Hardest examples", sections.hardest(hard, texts is not None)),
        "limits": ("What it must not decide alone", LIMITS),
        "run": (
            "The run",
            details("The experiment", config)
            + details("The environment", _read(out, "environment.json")),
        ),
    }
    page = _page(out.resolve().name, _statement(config, names, sizes), parts)
    return write_whole(out / "report.html", page.encode("utf-8"))


LIMITS = """<div class="notice"><p><strong>A person decides.</strong> The labels help to find what
should be read first. They are no diagnosis and no judgement of a person, and a missing label is no
all-clear.</p><p>The figures hold for texts like those of this test split alone: for other writers,
times or languages they must be measured anew.</p></div>"""


def hardest(
    test: Predictions, decided: np.ndarray, names: tuple[str, ...], texts: Sequence[str] | None
) -> list[HardExample]:
    """Examples with a wrong label, by how far the probability behind it was from the truth."""
    true, known = test.labels == 1, ~np.isnan(test.labels)
    gaps = np.where(known & (true != decided), np.abs(true - test.probs.astype(np.float64)), -1.0)
    worst, label = gaps.max(axis=1), gaps.argmax(axis=1)
    found = []
    for row in map(int, np.argsort(-worst, kind="stable")[:HARDEST]):
        if worst[row] >= 0:
            one = label[row]
            found.append(
                HardExample(
                    id=str(test.ids[row]),
                    true=[names[at] for at in np.flatnonzero(true[row])],
                    given=[names[at] for at in np.flatnonzero(decided[row])],
                    label=names[one],
                    probability=float(test.probs[row, one]),
                    wanted=bool(true[row, one]),
                    text=None if texts is None else texts[row],
                )
            )
    return found


def _of_several(out: Path) -> dict[str, tuple[str, str]]:
    """Sections of an ensemble's members and of a cascade's stages."""
    found = {}
    for title, file, told in (
        ("Members", members.MEMBERS, lambda about: to_markdown(members_table(about))),
        ("Stages", summary.STAGES, summary.format_stages),
    ):
        if about := _read(out, file):
            name = title.lower()
            found[name] = (title, box(name, f"<pre>{escape(told(about))}</pre>"))
    return found


def _statement(config: Any, names: tuple[str, ...], sizes: dict[str, int]) -> str:
    made = f"the encoder {config['encoder']['name']} fine-tuned with jaxclf" if config else ""
    counts = " and ".join(f"{size:,} {split} texts" for split, size in sizes.items())
    what = f"A multi-label text classifier of {len(names)} labels"
    return f"{what}{f', {made}' if made else ''}, scored on {counts}."


def _page(name: str, statement: str, parts: dict[str, tuple[str, str]]) -> str:
    style, script = (
        Path(__file__).with_name(f"report.{ending}").read_text(encoding="utf-8")
        for ending in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    policy += f"{digest}'"
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in parts.items())
    body = "\n".join(section(key, *part) for key, part in parts.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(name)}: report</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<h1>{escape(name)}</h1>
<p>{escape(statement)}</p>
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
<footer class="soft"><p>Written by jaxclf {__version__} from the files of this run.</p></footer>
<script>{script}</script>
</body>
</html>
"""


def _read(out: Path, name: str) -> Any:
    path = out / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
