"""The bar of `show_progress_bar=True`, if tqdm is installed."""

import sys
from collections.abc import Iterator

from gte_sdk.errors import InputError


def progress_bar(text_count: int, window_texts: int) -> Iterator[int]:
    """The first text of each window. The bar counts texts, those of a window once it is done.

    Raises InputError with the extra to install if tqdm is missing.
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise InputError("show_progress_bar=True needs tqdm: pip install 'gte-sdk[cli]'") from error
    is_hidden = sys.stderr is None  # under pythonw and in a windowed PyInstaller
    with tqdm(total=text_count, desc="embed", unit=" texts", disable=is_hidden) as bar:
        for start in range(0, text_count, window_texts):
            yield start
            bar.update(min(window_texts, text_count - start))
