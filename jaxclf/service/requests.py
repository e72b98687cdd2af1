"""Bodies of requests -> texts, or the reason why not, which never repeats what was sent."""

import asyncio
import json
from typing import Any

from starlette.requests import Request

BODY = 1_048_576  # bytes
TEXTS = 256  # in one request
CHARACTERS = 20_000  # of one text; networks mostly read less
READING = 10.0  # seconds for a body to arrive

FORM = 'send {"text": "…"} or {"texts": ["…", …]}'


class RefusedError(Exception):
    """A request that gets no answer but a status and a reason. after: seconds until it should be
    sent again, where it should."""

    def __init__(self, status: int, reason: str, after: int | None = None):
        super().__init__(reason)
        self.status, self.reason, self.after = status, reason, after


async def read_json(request: Request) -> Any:
    """The JSON of a body.

    Raises RefusedError (400, 408, 413, 415), ClientDisconnect.
    """
    _check_headers(request)
    body = bytearray()
    try:
        async with asyncio.timeout(READING):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY:
                    raise _too_long()
    except TimeoutError:
        reason = f"the body did not arrive within {READING:.0f} seconds; send it at once"
        raise RefusedError(408, reason) from None
    return parse(bytes(body))


def parse(body: bytes) -> Any:
    """Strict JSON in UTF-8: no NaN, no key twice. Raises RefusedError (400)."""
    try:
        text = body.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        reason = f"the body is not UTF-8 at byte {error.start}; send JSON in UTF-8"
    except json.JSONDecodeError as error:
        reason = f"the body is not JSON at character {error.pos}: {error.msg}"
    except (RecursionError, ValueError):
        reason = "the body is not JSON: nested too deep, or a number too long"
    raise RefusedError(400, reason)


def parse_texts(content: Any) -> list[str]:
    """The texts of {"text": …} or {"texts": […]}. Raises RefusedError (422)."""
    if not isinstance(content, dict) or set(content) not in ({"text"}, {"texts"}):
        raise RefusedError(422, f"the body must hold 'text' or 'texts' and no more; {FORM}")
    if "text" in content:
        return [_text("'text'", content["text"])]
    texts = content["texts"]
    if not isinstance(texts, list) or not texts:
        raise RefusedError(422, f"'texts' must be a list with a text or more; {FORM}")
    if len(texts) > TEXTS:
        raise RefusedError(
            422, f"'texts' holds {len(texts):,} texts; send at most {TEXTS} at a time"
        )
    return [_text(f"texts[{index}]", text) for index, text in enumerate(texts)]


def text_of(content: Any) -> str:
    """The text of {"text": …}. Raises RefusedError (422)."""
    if not isinstance(content, dict) or set(content) != {"text"}:
        raise RefusedError(422, 'the body must hold \'text\' and no more; send {"text": "…"}')
    return _text("'text'", content["text"])


def _text(where: str, text: Any) -> str:
    if not isinstance(text, str):
        raise RefusedError(422, f"{where} must be a string")
    if not text.strip():
        raise RefusedError(422, f"{where} is empty; leave it out")
    if len(text) > CHARACTERS:
        reason = f"{where} has {len(text):,} characters; send at most {CHARACTERS:,} of them"
        raise RefusedError(422, reason)
    try:
        text.encode()
    except UnicodeEncodeError:
        reason = f"{where} holds half of a surrogate pair; write the character itself"
        raise RefusedError(422, reason) from None
    return text


def _check_headers(request: Request) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(415, "a compressed body is not read; send it without Content-Encoding")
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.partition("charset=")[2].strip(' "').lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise RefusedError(
            415, "the body must be JSON in UTF-8; send it with Content-Type: application/json"
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > BODY:
        raise _too_long()


def _too_long() -> RefusedError:
    return RefusedError(413, f"the body is longer than {BODY:,} bytes; send fewer texts at a time")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise RefusedError(400, "a key stands twice in one object; send each once")
    return fields


def _no_number(name: str) -> Any:
    raise RefusedError(400, f"{name} is no JSON; send numbers or null")
