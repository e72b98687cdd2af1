"""Text files in the encoding and the compression that they have."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from jaxclf.errors import DataError

CHUNK = 2**16  # characters or bytes read at a time
# Characters of all texts and listed labels, and their ratio to the file's bytes: a file beyond both
# was made to fill the memory.
MAX_EXPANDED, MAX_RATIO = 2**26, 200
ESCAPED_BYTE = re.compile("[\udc80-\udcff\ufffd]")  # of the handlers in `_first_bad_line`


def max_size(path: Path) -> int:
    """The most characters or bytes that the rows of a file may have."""
    return max(MAX_EXPANDED, MAX_RATIO * path.stat().st_size)


def is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def too_large(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: {size:,} characters up to here, too many for a file of its size; divide it, or "
        "store it as JSON lines"
    )


class _LimitedGzip(gzip.GzipFile):
    """Raises DataError where the content is far larger than the file."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.path, self.limit = path, max_size(path)

    def read1(self, size: int = -1) -> bytes:
        content = super().read1(size)
        if self.tell() > self.limit:
            raise too_large(self.path, self.tell())
        return content


def _open_bytes(path: Path) -> BufferedReader | _LimitedGzip:
    return _LimitedGzip(path) if is_packed(path) else path.open("rb")


def detect_encoding(path: Path) -> str:
    """UTF-16 or UTF-32 by the byte order mark or by zero bytes, as RFC 4627 has it; else UTF-8."""
    with _reading(path), _open_bytes(path) as file:
        return json.detect_encoding(file.read(4))


@contextmanager
def open_text(path: Path, newline: str, errors: str = "strict") -> Iterator[TextIOWrapper]:
    """Open a text file. Raises DataError where it is damaged or not in its encoding.

    newline, errors: as for `open`.
    """
    encoding = detect_encoding(path)
    with _reading(path):
        try:
            with TextIOWrapper(_open_bytes(path), encoding, errors, newline) as file:
                yield file
        except UnicodeDecodeError:
            line = _first_bad_line(path, encoding, newline)
            name = encoding.removesuffix("-sig").upper()
            raise DataError(
                f"{path}:{line}: not {name}; save the file as UTF-8 ('CSV UTF-8' in a spreadsheet)"
            ) from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path}: not a whole gzip file; pack it again") from None


def _first_bad_line(path: Path, encoding: str, newline: str) -> int:
    """The line with the first byte that is not in the encoding; lines end where the parser's do."""
    line, previous = 1, ""
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    with TextIOWrapper(_open_bytes(path), encoding, errors, newline) as file:
        while piece := file.readline(CHUNK):
            if not piece.isascii() and ESCAPED_BYTE.search(piece):
                break
            is_split = piece == "\n" and previous.endswith("\r")  # by the limit of readline
            line += piece.endswith(("\n", "\r") if newline == "" else "\n") and not is_split
            previous = piece
    return line
