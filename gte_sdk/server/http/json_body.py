"""JSON read in bounded memory: at most about four times a body, where json.loads alone takes up to 25 times.

8 MiB of `[],` are 2.8 million lists, so a large body's values are counted before they are made. And one emoji makes
four bytes of each character of the document around it, so its texts are cut out and decoded one by one.
"""

import json
import re
from typing import Any, NoReturn

from gte_sdk.server.http.refusal import invalid

MAX_NUMBERS = 2**19
"""Numbers, true, false and null in one body; as token ids they are 21 MB of Python's integers."""
# Whatever a body of this size holds, it is not worth counting.
SMALL_BYTES = 65_536
# A text with escapes is read in pieces of about so many bytes.
PIECE_BYTES = 65_536
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What marks two bytes that are an escape; and a place where a text can be cut: behind six bytes without a backslash
# (so not inside of an escape, nor between the two of a surrogate pair), before what does not continue a character.
_ESCAPED = b"\0\1"
_CUT = re.compile(rb"[^\\]{6}(?![\x01\x80-\xbf])", re.DOTALL)
_NEEDS_READING = re.compile(rb"[\\\x00-\x1f]")


def read_json(body: bytearray, max_texts: int) -> Any:
    """What a body holds. Empties the body as soon as it is no longer needed, so that the caller keeps nothing.

    max_texts: of one list; names and other texts come on top. Raises ValueError or RecursionError for what is not JSON
    (NaN, infinities, and objects with a field twice are not), and Refusal 422 for too many values.
    """
    content = bytes(body)
    body.clear()
    if len(content) <= SMALL_BYTES:
        text = content.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogatepass")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    skeleton, texts = _texts_apart(content.removeprefix(_BYTE_ORDER_MARK), max_texts)
    del content
    return _with_texts(skeleton, texts)


def _texts_apart(body: bytes, max_texts: int) -> tuple[bytes, list[bytes]]:
    """The body with a number in place of each text, and the texts in UTF-8 (with lone surrogates)."""
    marked = body.replace(rb"\\", _ESCAPED).replace(rb"\"", _ESCAPED)  # as long as the body
    # Names of fields, and the objects that /rerank takes as documents, have more texts than inputs.
    most = 4 * max_texts + 100
    if marked.count(b'"') > 2 * most:
        raise invalid(f"the body has more than {most} texts; send fewer at a time", None, "too_many_inputs")
    outside: list[bytes] = []
    texts: list[bytes] = []
    end = 0
    while (start := marked.find(b'"', end) + 1) > 0:
        outside.append(body[end : start - 1] + b'"%d"' % len(texts))
        end = marked.find(b'"', start)
        if end < 0:
            raise ValueError("a text has no end")
        texts.append(_unescaped(body, marked, start, end))
        end += 1
    outside.append(body[end:])
    skeleton = b"".join(outside)
    if skeleton.count(b"[") + skeleton.count(b"{") > most:
        if b"[[[" in skeleton:
            raise ValueError("lists are nested too deep")
        raise invalid(f"the body has more than {most} lists and objects; send fewer at a time", None, "too_many_inputs")
    if skeleton.count(b",") > MAX_NUMBERS + most:
        message = f"the body has more than {MAX_NUMBERS} numbers; send fewer token ids at a time"
        raise invalid(message, None, "too_many_tokens")
    return skeleton, texts


def _unescaped(body: bytes, marked: bytes, start: int, end: int) -> bytes:
    if _NEEDS_READING.search(body, start, end) is None:
        return body[start:end]
    read = bytearray()
    while start < end:
        cut = _CUT.search(marked, start + PIECE_BYTES, end)
        stop = cut.end() if cut else end
        piece = (b'"' + body[start:stop] + b'"').decode("utf-8", "surrogatepass")
        read += json.loads(piece).encode("utf-8", "surrogatepass")
        start = stop
    return bytes(read)


def _with_texts(skeleton: bytes, texts: list[bytes]) -> Any:
    def text(number: str) -> str:
        raw, texts[int(number)] = texts[int(number)], b""  # each is asked for once, and then given back
        return raw.decode("utf-8", "surrogatepass")

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, str | list):
                    value[index] = filled(each)
        return value

    def filled_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return _object([(text(name), filled(value)) for name, value in pairs])

    content = json.loads(skeleton.decode("ascii"), parse_constant=_refuse_constant, object_pairs_hook=filled_object)
    return filled(content)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"an object has the field {name[:80]!r} twice")
        content[name] = value
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
