"""Rows of Parquet files, in memory that does not depend on how well the file is compressed, and of
folders that `datasets` saved."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxclf.errors import DataError, printable

MAX_ROWS = 1024  # decoded at a time
MAX_BYTES = 2**25  # decoded at a time, unless one row has more
BUFFER = 2**16


def iter_rows(path: Path, max_size: int) -> Iterator[dict[str, Any]]:
    """The rows, each with the columns as keys.

    max_size: the most bytes of a row group or dictionary without compression. Raises DataError.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow; pip install 'jaxclf[parquet]'") from None
    try:
        with (
            path.open("rb") as raw,
            pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file,
        ):
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"{path}: duplicate column; every column needs a name of its own")
            for group in range(file.num_row_groups):
                size, rows = measure(raw, file.metadata.row_group(group))
                if size > max_size:
                    raise DataError(
                        f"{path}: {size:,} bytes without compression, too many for a file of its "
                        "size; divide it, or store it as JSON lines"
                    )
                for batch in file.iter_batches(rows, row_groups=[group]):
                    yield from _rows_of(batch)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not Parquet: {printable(str(error), 300)}") from None


def measure(raw: BinaryIO, group: Any) -> tuple[int, int]:
    """(bytes of a row group without compression, number of its rows to decode at a time).

    A value of a dictionary may occur in every row, so a row may have as many bytes as the
    dictionary, for each of its values. Other values are at most as many as the group's bytes.
    """
    size = group.total_byte_size
    row_bytes = size / MAX_ROWS
    for index in range(group.num_columns):
        column = group.column(index)
        values_per_row = column.num_values / max(1, group.num_rows)
        page_bytes = first_page_bytes(raw, column)
        size = max(size, page_bytes)
        row_bytes = max(row_bytes, page_bytes * max(1, values_per_row))
    return size, int(min(MAX_ROWS, max(1, MAX_BYTES // max(1, row_bytes))))


def first_page_bytes(raw: BinaryIO, column: Any) -> int:
    """The size of a column's first page without compression; its dictionary, where it has one.

    The header begins with two numbers in Thrift's compact encoding: the type and this size.
    """
    offsets = (column.dictionary_page_offset, column.data_page_offset)
    raw.seek(min(offset for offset in offsets if offset))
    header = raw.read(12) + bytes(12)  # where the file is cut, the reader will say so
    numbers, at = [], 0
    for _ in range(2):
        at, number, shift = at + 1, 0, 0
        while header[at] & 0x80:
            number, shift, at = number | (header[at] & 0x7F) << shift, shift + 7, at + 1
        numbers.append((number | header[at] << shift) >> 1)
        at += 1
    if numbers[1] >= 2**31:
        raise ValueError("a page without a valid header")
    return numbers[1]


def iter_arrow(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a folder of `datasets.Dataset.save_to_disk`. Raises DataError."""
    if (splits := folder / "dataset_dict.json").is_file():
        names = json.loads(splits.read_bytes()).get("splits", [])
        raise DataError(
            f"{folder}: a folder of several splits; name one: "
            + ", ".join(str(folder / printable(str(name))) for name in names)
        )
    if not (folder / "state.json").is_file():
        raise DataError(f"{folder}: a folder; name a file in it")
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise DataError(
            f"{folder}: a saved dataset needs pyarrow: pip install 'jaxclf[parquet]'; or write a "
            "file with Dataset.to_parquet"
        ) from None
    try:
        state = json.loads((folder / "state.json").read_bytes())
        for file in state["_data_files"]:
            with pyarrow.ipc.open_stream(folder / Path(file["filename"]).name) as batches:
                for batch in batches:
                    yield from _rows_of(batch)
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        reason = printable(str(error), 300)
        raise DataError(
            f"{folder}: not a saved dataset: {reason}; save it again, or write a file with "
            "Dataset.to_parquet"
        ) from None


def _rows_of(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch. Class ids of `datasets` become the names that its features have."""
    import pyarrow

    for index, field in enumerate(batch.schema):
        if pyarrow.types.is_timestamp(field.type):  # Python has no nanoseconds
            column = batch.column(index).cast(pyarrow.string())
            batch = batch.set_column(index, field.name, column)
    names = _class_names(batch.schema)
    for row in batch.to_pylist():
        yield row | {key: _name_classes(row[key], names[key]) for key in names} if names else row


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names of the classes of each column of `datasets`' type ClassLabel, or lists of it."""
    names = {}
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        for column, feature in metadata.get("info", {}).get("features", {}).items():
            while isinstance(feature, list) or "feature" in feature:
                feature = feature[0] if isinstance(feature, list) else feature["feature"]
            if column in schema.names and feature.get("_type") == "ClassLabel":
                names[column] = list(feature["names"])
    except (ValueError, AttributeError, TypeError, LookupError):
        return {}  # the metadata of another program
    return names


def _name_classes(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_name_classes(item, names) for item in value]
    if value == -1:  # not labeled
        return None
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
