"""Writes the table of docs/models-from-the-hub.md from the table of known models and what their look-alikes showed.

python -m tests.docs.hub_models
"""

from pathlib import Path

from gte_sdk.model_files.known_models import KNOWN_MODELS, KnownModel
from tests.published.lookalikes import engine_of, outcome_of, variants_of

PAGE = Path(__file__).parents[2] / "docs" / "models-from-the-hub.md"
BEGIN, END = "<!-- the table of known models: begin -->\n", "<!-- the table of known models: end -->\n"
_COLUMNS = (
    "model", "pooling", "`embed_query`", "`embed_documents`", "dimensions", "tokens", "languages", "licence",
    "a bare conversion", "engine: variants", "remarks",
)  # fmt: skip


def table() -> str:
    """The table in Markdown, one row for each family."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in KNOWN_MODELS)]) + "\n"


def _cells(row: KnownModel) -> list[str]:
    document = row.prompts.get("document", row.prompts.get("passage", ""))
    dims = dict.fromkeys(row.dims)
    return [
        f"{row.owner}: {', '.join(f'`{name}`' for name in row.names)}",
        row.pooling,
        _code(row.prompts.get("query", "")),
        _code(document),
        ", ".join(map(str, dims)),
        f"{row.max_tokens:,}",
        row.languages,
        row.licence,
        outcome_of(row),
        f"{engine_of(row)}: {variants_of(row)}" if engine_of(row) else "",
        "; ".join(filter(None, [row.refused, row.remark])),
    ]


def _code(text: str) -> str:
    return f"`{text}`".replace("\n", "\\n").replace("|", "\\|") if text else ""


def with_table(page: str) -> str:
    """The page with the table between its two marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
