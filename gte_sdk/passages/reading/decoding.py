"""From bytes to text, and whether bytes are text at all, as far as that can be told without a guess.

UTF-8 and byte order marks say what they are. UTF-16 without a mark shows in its zero bytes. What is neither is a text
of Western Europe (Windows-1252, of which Latin-1 is nearly a part) if few of its bytes are above 127: in the languages
that it was made for, an accent is rare. In any other encoding, most letters are.
"""

import codecs
import re

MAX_LINES = 250_000
"""More are data. Each takes up to 240 bytes while a file is split."""

# Not those of terminals and printers, such as tabs, form feeds and escapes.
_CONTROLS = re.compile(rb"[\x01-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_NOT_IN_WINDOWS_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
# Of a text's bytes. Logs hold stray controls. Of French, 4 % are accents; of Russian, 80 % are above 127.
_MAX_CONTROLS, _MAX_WESTERN = 0.01, 0.3
# Of all zero bytes in UTF-16 of a mostly Latin text, this share is in the one half of each pair of bytes.
_MIN_ONE_SIDED, _MIN_ZEROS = 0.98, 0.2


class NoTextError(ValueError):
    """Bytes that are no text. The first argument is the reason, the second what is said about the file."""


def looks_like_text(head: bytes) -> bool:
    """Returns whether a file that begins with these bytes is text in some encoding."""
    if _utf16_of(head):
        return True
    return b"\0" not in head and not _has_controls(head)


def decode(content: bytes) -> str:
    """Returns the text of bytes. Raises NoTextError if they are binary, in an unknown encoding or too many lines."""
    encoding = _utf16_of(content[:8192]) or "utf-8-sig"
    if encoding == "utf-8-sig" and not looks_like_text(content):
        raise NoTextError("binary", "a binary file")
    if max(content.count(b"\n"), content.count(b"\r")) > MAX_LINES:
        raise NoTextError("too many lines", f"more than {MAX_LINES:,} lines")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig" and _is_western(content):
            return content.decode("latin-1" if _NOT_IN_WINDOWS_1252.search(content) else "cp1252")
        said = f"not {error.encoding.upper()} at byte {error.start}"
        raise NoTextError("unknown encoding", f"{said}; convert it to UTF-8") from error


def _has_controls(content: bytes) -> bool:
    return len(_CONTROLS.findall(content)) > _MAX_CONTROLS * len(content)


def _utf16_of(head: bytes) -> str | None:
    """Returns the name of the codec if bytes are UTF-16, else None."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = head.count(0)
    if len(head) % 2 or not zeros or zeros < _MIN_ZEROS * len(head) or b"\0\0" in head:
        return None
    in_odd_places = head[1::2].count(0) / zeros
    if max(in_odd_places, 1 - in_odd_places) < _MIN_ONE_SIDED:
        return None
    encoding = "utf-16-le" if in_odd_places > 0.5 else "utf-16-be"
    text = head.decode(encoding, "ignore")
    return None if _has_controls(text.encode()) else encoding  # else: numbers of two bytes each


def _is_western(content: bytes) -> bool:
    high = len(content.translate(None, bytes(range(0x80))))
    if high > _MAX_WESTERN * len(content):
        return False
    # In damaged UTF-8, characters of several bytes are mostly whole. In Latin-1, two accents in a row are rare.
    text = content.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = sum(1 for _ in re.finditer(r"[^\x00-\x7f\ufffd]", text))
    return broken > whole
