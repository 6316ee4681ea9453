"""The warning or error about texts with more tokens than the model reads."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from gte_sdk.errors import InputError, TruncationWarning
from gte_sdk.runtime.tokens import COUNTED_CHARACTERS

TRUNCATION_MODES = ("warn", "error", "ignore")


def report_truncation(
    texts: Sequence[str], left_out: Sequence[int], first_index: int, max_tokens: int, mode: str
) -> None:
    """Warns or raises InputError, as `mode` says, if a text was cut.

    left_out: how many tokens of each text were cut off. The first of them is text number first_index of the caller.
    """
    cut = [index for index, count in enumerate(left_out) if count]
    if not cut or mode == "ignore":
        return
    longest = max(cut, key=lambda index: left_out[index])
    # Where a text is that long, not all of its tokens are counted.
    least = "at least " if any(len(texts[index]) > COUNTED_CHARACTERS for index in cut) else ""
    message = (
        f"{len(cut)} of {len(left_out)} texts have more than max_tokens={max_tokens} tokens and "
        f"{least}{sum(left_out)} tokens were left out, {left_out[longest]} of them of text {first_index + longest}; "
        "embed_chunks() embeds a long text in pieces"
    )
    if mode == "error":
        raise InputError(message)
    warnings.warn(message, TruncationWarning, stacklevel=_frames_inside())


def _frames_inside() -> int:
    """The stacklevel with which a warning names the caller's line instead of a line of this package."""
    package = str(Path(__file__).parent.parent)
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level
