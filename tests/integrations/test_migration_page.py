"""The page on Chroma's default embeddings: the programs after the change, on a collection that another model filled."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "migrate" / "chroma.md"


def test_a_stored_collection_moves_to_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("chromadb")
    monkeypatch.chdir(tmp_path)
    before, after, stored = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    # Chroma's default model would be fetched.
    other_model = "from gte_sdk.integrations.chroma import GteEmbeddingFunction\n" + before.replace(
        'create_collection("notes")', 'create_collection("notes", embedding_function=GteEmbeddingFunction("gte-nano"))'
    )
    assert other_model.count("GteEmbeddingFunction") == 2
    exec(other_model, {})
    names: dict[str, object] = {}
    exec(after, names)
    exec(stored, names)
    assert capsys.readouterr().out == "[['bread']]\n[['bread']]\n2 [['bread']]\n"
