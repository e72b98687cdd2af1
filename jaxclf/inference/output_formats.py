"""The rows of a user's file with the predictions of a model, in the form of the output's ending."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxclf.files.spreadsheet import escape_cell
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.delimited_style import Style, format_rows, read_style
from jaxclf.text import prediction_columns as columns
from jaxclf.text.parsed_rows import ParsedRow
from jaxclf.text.prediction_columns import is_prediction
from jaxclf.text.text_file import is_packed

DELIMITERS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*DELIMITERS, ".jsonl", ".ndjson", ".json")


class Layout(NamedTuple):
    """Options of the output.

    model_column: whether rows name the model and jaxclf's version. escape_formulas: write the
        user's cells to CSV so that a spreadsheet does not compute them. text_column: the name of
        the text's column, "" for `text`.
    """

    model_column: bool = True
    escape_formulas: bool = False
    text_column: str = ""


class Predicted(NamedTuple):
    """Predictions of some rows; in a row without a text, probabilities are NaN."""

    probs: Float[np.ndarray, "rows classes"]
    decided: Bool[np.ndarray, "rows classes"]
    cut: Bool[np.ndarray, " rows"]


class Writer(NamedTuple):
    """An output: the text before all rows, that of each row, between rows and behind the last.

    encoding, row_encoding: of the header and of rows, which have no byte order mark.
    """

    header: str
    format_rows: Callable[[Sequence[ParsedRow], Predicted], list[str]]
    separator: str = ""
    footer: str = ""
    encoding: str = "utf-8"
    is_packed: bool = False

    def encode(self, text: str, is_header: bool = False) -> bytes:
        """The bytes of a text. Half of a surrogate pair is written as its escape in JSON."""
        encoding = self.encoding
        if not is_header:  # as Python writes UTF-16, without another byte order mark
            encoding = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(
                encoding, encoding
            )
        content = text.encode(encoding, "backslashreplace")
        return gzip.compress(content, mtime=0) if self.is_packed and content else content


def ending_of(path: Path) -> str:
    """The ending without `.gz`, in lower case."""
    return Path(path.stem if is_packed(path) else path.name).suffix.lower()


def is_table(path: Path) -> bool:
    """Whether all rows of a file have the same columns."""
    return ending_of(path) in DELIMITERS


def make_writer(
    classifier: Classifier, source: Path, target: Path, layout: Layout, names: Sequence[str]
) -> Writer:
    """The writer of an output.

    names: the columns of the input, for a table.
    """
    ending = ending_of(target)
    if ending not in DELIMITERS:
        is_list = ending == ".json"

        def to_json(rows: Sequence[ParsedRow], predicted: Predicted) -> list[str]:
            end = "" if is_list else "\n"
            return [line + end for line in _json_rows(classifier, layout, rows, predicted)]

        marks = ("[\n", ",\n", "\n]\n") if is_list else ("", "", "")
        return Writer(marks[0], to_json, marks[1], marks[2], is_packed=is_packed(target))
    style = Style(DELIMITERS[ending])
    if ending_of(source) == ending:
        style = read_style(source, layout.text_column, DELIMITERS[ending])
    names = [name for name in names if not is_prediction(name)]
    escape = escape_cell if layout.escape_formulas else str
    header = [*map(escape, names), *_columns(classifier, layout)]

    def to_cells(rows: Sequence[ParsedRow], predicted: Predicted) -> list[str]:
        cells = (
            [*(escape(to_cell(row.fields.get(name))) for name in names), *predictions]
            for row, predictions in zip(
                rows, _prediction_cells(classifier, layout, predicted), strict=True
            )
        )
        return format_rows(cells, style)

    (line,) = format_rows([header], style)
    return Writer(line, to_cells, encoding=style.encoding, is_packed=is_packed(target))


def to_cell(value: Any) -> str:
    """A value of JSON or Parquet as the cell of a table."""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)


def _columns(classifier: Classifier, layout: Layout) -> list[str]:
    return [
        *map(columns.predicted, classifier.labels),
        *map(columns.probability, classifier.labels),
        columns.CUT,
        *[columns.MODEL] * layout.model_column,
    ]


def _prediction_cells(
    classifier: Classifier, layout: Layout, predicted: Predicted
) -> list[list[str]]:
    """The cells under `_columns`; all are empty in a row without a text, but the model's."""
    model = [classifier.identifier] * layout.model_column
    width = 2 * len(classifier.labels) + 1
    return [
        [*(str(int(yes)) for yes in decided), *(f"{p:.6f}" for p in probs), str(int(cut)), *model]
        if not np.isnan(probs).any()
        else [*[""] * width, *model]
        for probs, decided, cut in zip(*predicted, strict=True)
    ]


def _json_rows(
    classifier: Classifier, layout: Layout, rows: Sequence[ParsedRow], predicted: Predicted
) -> list[str]:
    """One object a row: the user's keys, predicted labels, every probability, the model."""
    lines, names = [], classifier.labels
    model = {columns.MODEL: classifier.identifier} if layout.model_column else {}
    for row, probs, decided, cut in zip(rows, *predicted, strict=True):
        prediction: dict[str, Any] = {columns.LABELS: None, columns.PROBABILITIES: None}
        if not np.isnan(probs).any():
            prediction = {
                columns.LABELS: [name for name, yes in zip(names, decided, strict=True) if yes],
                columns.PROBABILITIES: {
                    name: float(f"{p:.6f}") for name, p in zip(names, probs, strict=True)
                },
                columns.CUT: bool(cut),
            }
        fields = {key: value for key, value in row.fields.items() if not is_prediction(key)}
        line = fields | prediction | model
        lines.append(json.dumps(line, ensure_ascii=False, default=str))
    return lines
