"""What a saved model was trained on, for its card and for the record of an export."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import from_dict, iter_fields
from jaxclf.files.digest import DIGEST
from jaxclf.files.markdown import escape_markdown
from jaxclf.files.untrusted import printable

HEADING = "## Origin"
SHORT = 12  # digits of a digest that people read
INTRODUCTION = (
    "The digest is the SHA-256 of this folder's content; the first 12 digits stand beside every "
    "answer. The others are of the files and columns that the model was made from."
)

WINDOWS = ("data.max_length", "data.max_windows", "data.window_overlap")
PLACES = ("encoder.name", "encoder.revision", "train.init_from")  # named elsewhere, or private


def read_origin(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The digest of a model, what wrote it and what it was trained on, from its sealed JSON file.

    An ensemble and a cascade have the digests of their models in place of an encoder.
    """
    names = (DIGEST, "jaxclf", "exported_from", "models")
    origin = {name: meta[name] for name in names if name in meta}
    if "experiment" in meta:
        encoder = meta["experiment"]["encoder"]
        origin["encoder"] = {name: encoder[name] for name in ("name", "revision")}
    provenance = meta["provenance"]
    return origin | {name: provenance[name] for name in ("splits", "files") if name in provenance}


def with_origin(card: str, meta: Mapping[str, Any]) -> str:
    """The card with a section on the model's origin, in place of an older one if it has one."""
    origin = read_origin(meta)
    writer = f"jaxclf {origin['jaxclf']}, {datetime.now(UTC):%Y-%m-%d}"
    rows = [("digest", _code(origin[DIGEST])), ("written by", writer)]
    if "exported_from" in origin:
        rows.append(("exported from", _code(origin["exported_from"])))
    rows += [(name, _code(digest)) for name, digest in origin.get("models", {}).items()]
    if encoder := origin.get("encoder"):
        sums = _sums(origin.get("files", {}).get("encoder"))
        rows.append(("encoder", _code(" ".join(filter(None, encoder.values()))) + sums))
    for name, split in origin["splits"].items():
        file, count = _code(str(split.get("file"))), f"{split.get('rows', 0):,} rows"
        rows.append((escape_markdown(printable(name)), f"{file}, {count}{_sums(split['sha256'])}"))
    lines = [f"| {name} | {value} |" for name, value in rows]
    if "experiment" in meta:
        settings = textwrap.fill(" ".join(_hyperparameters(meta["experiment"])), 92)
        lines += ["", "Hyperparameters and seed, as `jaxclf train` takes them:", ""]
        lines += [f"    {line}" for line in settings.splitlines()]
    section = "\n".join([HEADING, "", INTRODUCTION, "", "| | |", "| --- | --- |", *lines, ""])
    before, _, rest = card.partition(f"\n{HEADING}\n")
    after = re.search(r"\n## .*", rest, re.DOTALL)
    return f"{before.rstrip()}\n\n{section}{after[0] if after else ''}"


def _hyperparameters(experiment: Mapping[str, Any]) -> Iterator[str]:
    """Yield `key=value` of what a model depends on besides its data and encoder."""
    for key, value in iter_fields(from_dict(experiment)):
        if key in PLACES or (key.startswith("data.") and key not in WINDOWS):
            continue
        options = value.options if isinstance(value, Spec) else {}
        text = value.name if isinstance(value, Spec) else json.dumps(value)
        yield printable(f"{key}={text}", 300)
        yield from (f"{key}.{name}={json.dumps(option)}" for name, option in options.items())


def _sums(digests: Any) -> str:
    """The first digits of SHA-256 by name, after a comma."""
    if not isinstance(digests, dict):
        return ""
    return "".join(
        f", {escape_markdown(printable(name))} `{value[:SHORT]}`" for name, value in digests.items()
    )


def _code(text: str) -> str:
    """Literal text in a table."""
    return "`" + printable(text, 300).replace("`", "'").replace("|", "\\|") + "`"
