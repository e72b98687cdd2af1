"""Rows of Parquet files, in memory that does not depend on how well the file is compressed."""

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
                    for index, field in enumerate(batch.schema):
                        if pyarrow.types.is_timestamp(field.type):  # Python has no nanoseconds
                            column = batch.column(index).cast(pyarrow.string())
                            batch = batch.set_column(index, field.name, column)
                    yield from batch.to_pylist()
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
