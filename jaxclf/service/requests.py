"""Bodies of requests: bounded in size and time, strict JSON in UTF-8, plain or gzipped. An error
repeats nothing of what was sent."""

import asyncio
import json
import zlib
from typing import Any

from starlette.requests import Request

MAX_BYTES = 1_048_576
MAX_SECONDS = 10.0  # for a body to arrive
GZIP, GZIP_NAMES = 31, ("gzip", "x-gzip")  # zlib's number, and the names of the encoding


class RefusedError(Exception):
    """A request that is answered with an error.

    retry_after: seconds after which it may succeed, or None.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None):
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class ParsedRequest(Request):
    """A request with its body and the body's JSON."""

    def __init__(self, request: Request, body: bytes, content: Any):
        super().__init__(request.scope, request.receive)
        self.raw, self.content = body, content

    async def body(self) -> bytes:
        return self.raw

    async def json(self) -> Any:
        return self.content


async def read_body(request: Request) -> bytes:
    """The bytes of a body, unpacked. Raises RefusedError (400, 408, 413, 415), ClientDisconnect."""
    encoding = _check_headers(request)
    unpack = zlib.decompressobj(wbits=GZIP) if encoding in GZIP_NAMES else None
    body, received = bytearray(), 0
    try:
        async with asyncio.timeout(MAX_SECONDS):
            async for chunk in request.stream():
                received += len(chunk)
                # One byte too many is enough to refuse a body that grows without end.
                body += unpack.decompress(chunk, MAX_BYTES + 1) if unpack else chunk
                if max(received, len(body)) > MAX_BYTES:
                    raise _too_long()
    except TimeoutError:
        reason = f"the body did not arrive within {MAX_SECONDS:.0f} seconds; send it at once"
        raise RefusedError(408, reason) from None
    except zlib.error:
        raise RefusedError(400, "the body is not gzip, as Content-Encoding says") from None
    if unpack and (not unpack.eof or unpack.unused_data):
        raise RefusedError(400, "the body is not one whole gzip stream")
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """Strict JSON in UTF-8: no NaN, no duplicate keys. Raises RefusedError (400)."""
    try:
        text = body.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        reason = f"the body is not UTF-8 at byte {error.start}; send JSON in UTF-8"
    except json.JSONDecodeError as error:
        reason = f"the body is not JSON at character {error.pos}: {error.msg}"
    except (RecursionError, ValueError):
        reason = "the body is not JSON: nested too deeply, or a number is too long"
    raise RefusedError(400, reason)


def _check_headers(request: Request) -> str:
    """The encoding of the body."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *GZIP_NAMES):
        raise RefusedError(415, "only gzip is unpacked; send the body without Content-Encoding")
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    # utf8 is not a registered name, but many clients write it.
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise RefusedError(
            415, "the body must be JSON in UTF-8; send it with Content-Type: application/json"
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise _too_long()
    return encoding


def _too_long() -> RefusedError:
    return RefusedError(
        413, f"the body is longer than {MAX_BYTES:,} bytes; send fewer texts at a time"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RefusedError(400, "duplicate key in an object; send each key once")
    return fields


def _refuse_constant(name: str) -> Any:
    raise RefusedError(400, f"{name} is not JSON; send numbers or null")
