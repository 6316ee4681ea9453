"""The bar of `show_progress_bar=True`, if tqdm is installed."""

import sys
from collections.abc import Iterable

from gte_sdk.errors import InputError


def progress_bar(windows: Iterable[int], window_texts: int) -> Iterable[int]:
    """The windows, drawn as they are taken. Raises InputError with the extra to install if tqdm is missing."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise InputError("show_progress_bar=True needs tqdm: pip install 'gte-sdk[cli]'") from error
    is_hidden = sys.stderr is None  # under pythonw and in a windowed PyInstaller
    bar: Iterable[int] = tqdm(windows, desc="embed", unit_scale=window_texts, unit=" texts", disable=is_hidden)
    return bar
