"""A cache of its own for each test, where every system looks for it."""

from pathlib import Path

import pytest

from gte_sdk.model_files import user_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder. A file that a test wrote just now counts as one that rests."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(user_cache, "_SETTLED_NS", 0)
    folder = user_cache.cache_folder()
    assert folder is not None
    assert folder.is_relative_to(tmp_path)
    return folder
