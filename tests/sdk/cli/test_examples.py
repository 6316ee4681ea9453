"""The example that gives `make demo` something to read: real documentation, in passages that a model can read."""

import subprocess
import sys
from pathlib import Path

from gte_sdk.passages.splitting import count_rough_tokens, split_passages
from gte_sdk.passages.text_files import LeftOut, find_text_files, kind_of, read_text

EXAMPLE = Path(__file__).parents[3] / "examples" / "standard_library_docs.py"


def test_the_standard_library_documents_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLE), "docs"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    passages = {}
    left_out: list[LeftOut] = []
    for path in find_text_files([tmp_path / "docs"], leave_out=left_out.append):
        text = read_text(path, left_out.append)
        assert text is not None
        passages[path.stem] = list(split_passages(path.name, text, kind_of(path) or "text"))
    assert left_out == []
    (dedent,) = [passage for passage in passages["textwrap"] if passage.text.startswith("## textwrap.dedent(text)")]
    assert dedent.context == "textwrap"
    assert "Remove any common leading whitespace from every line in `text`." in dedent.text
    assert any(passage.context.startswith('The "with" statement') for passage in passages["with"])
    assert not any("array.ArrayType" in passage.text for passage in passages["array"])
    sizes = [count_rough_tokens(passage.text) for parts in passages.values() for passage in parts]
    assert len(sizes) > 2000
    assert 200_000 < sum(sizes) < 600_000  # what a demonstration of under a minute can embed on two cores
