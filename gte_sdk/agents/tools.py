"""The tools as MCP describes them: what a model reads before it calls one, and the schemas of both sides."""

from typing import Any

from mcp_types import Tool, ToolAnnotations

from gte_sdk.agents.requests import (
    DEFAULT_LINES,
    DEFAULT_PASSAGES,
    MODES,
    MOST_GLOB_CHARACTERS,
    MOST_LINES,
    MOST_PASSAGES,
    MOST_PATH_CHARACTERS,
    MOST_QUERY_CHARACTERS,
)

INSTRUCTIONS = (
    "Finds passages in the user's own folders, by meaning and by words. Ask `search` a question or give it an exact "
    "identifier, then read around a passage with `read_passage`. Every result names path and line."
)

_STATES = ("indexing", "updating", "ready")
_PATH = {
    "type": "string",
    "minLength": 1,
    "maxLength": MOST_PATH_CHARACTERS,
    "description": "The path of a file as `search` returned it, or one below the folders that are searched.",
}
_LINE = {"type": "integer", "minimum": 1}
_K = {
    "type": "integer",
    "minimum": 1,
    "maximum": MOST_PASSAGES,
    "default": DEFAULT_PASSAGES,
    "description": "The most passages to return.",
}
_STATE: dict[str, Any] = {
    "state": {"type": "string", "enum": list(_STATES), "description": "indexing: passages may still be missing."},
    "files_done": {"type": "integer"},
    "files_to_read": {"type": "integer"},
}


def tool_list() -> list[Tool]:
    """Returns the tools, in the order of requests.TOOLS."""
    passage = _object(
        {
            "path": {"type": "string"},
            "line": {**_LINE, "description": "The first line of the passage."},
            "breadcrumb": {"type": "string", "description": "The headings or definitions around it, outermost first."},
            "score": {"type": "number", "description": "Higher is better; at most 1."},
            "text": {"type": "string"},
            "is_cut": {"type": "boolean", "description": "Whether the text is longer than what is returned."},
        }
    )
    found = _object({"passages": {"type": "array", "items": passage}, "index": _object(_STATE, required=("state",))})
    lines = _object(
        {
            "path": {"type": "string"},
            "line": {**_LINE, "description": "The first line of the text."},
            "last_line": {"type": "integer", "minimum": 0, "description": "line - 1 where the file has ended."},
            "lines_of_file": {"type": "integer", "minimum": 0},
            "breadcrumb": {"type": "string"},
            "text": {"type": "string"},
            "is_cut": {"type": "boolean", "description": "Whether less is returned than was asked for."},
        }
    )
    status = _object(
        {
            **_STATE,
            "folders": {"type": "array", "items": {"type": "string"}},
            "model": {"type": "string"},
            "fingerprint": {"type": "string"},
            "files": {"type": "integer", "minimum": 0},
            "passages": {"type": "integer", "minimum": 0},
            "left_out": {
                "type": "object",
                "additionalProperties": {"type": "integer"},
                "description": "How many files and folders were not read, by reason.",
            },
            "seconds_since_update": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
        required=("state", "folders", "model", "files", "passages", "left_out"),
    )
    return [
        _tool(
            "search",
            "Search files",
            "Finds the passages that answer a question, by meaning and by words, best first. An exact identifier or "
            "error code is found as well as a description in other words.",
            {
                "query": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MOST_QUERY_CHARACTERS,
                    "description": "A question, a description, or an identifier.",
                },
                "k": _K,
                "mode": {
                    "type": "string",
                    "enum": list(MODES),
                    "description": "By meaning, by words, or by both, which is the default.",
                },
                "min_score": {
                    "type": "number",
                    "minimum": -1,
                    "maximum": 1,
                    "description": "Leave out passages with a lower score.",
                },
                "glob": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MOST_GLOB_CHARACTERS,
                    "description": "Search only files whose name or path in a folder matches, such as *.py or src/*.",
                },
            },
            ("query",),
            found,
        ),
        _tool(
            "read_passage",
            "Read lines of a file",
            "Returns lines of an indexed file as the index has them, documents such as PDF as their text.",
            {
                "path": _PATH,
                "line": {**_LINE, "default": 1, "description": "The first line to return."},
                "line_count": {
                    "type": "integer", "minimum": 1, "maximum": MOST_LINES, "default": DEFAULT_LINES,
                    "description": "The most lines to return.",
                },
            },
            ("path",),
            lines,
        ),
        _tool(
            "similar",
            "Find similar passages",
            "Finds passages whose meaning is nearest to that of a passage in the index, in other files or the same.",
            {"path": _PATH, "line": {**_LINE, "description": "A line of the passage."}, "k": _K},
            ("path", "line"),
            found,
        ),
        _tool(
            "index_status",
            "Show the state of the index",
            "Says which folders are searched, how many files and passages they have, what was left out and why, and "
            "whether files are still being indexed.",
            {},
            (),
            status,
        ),
    ]  # fmt: skip


def _tool(
    name: str,
    title: str,
    description: str,
    arguments: dict[str, Any],
    required: tuple[str, ...],
    answer: dict[str, Any],
) -> Tool:
    return Tool(
        name=name,
        title=title,
        description=description,
        input_schema=_object(arguments, required),
        output_schema=answer,
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )


def _object(properties: dict[str, Any], required: tuple[str, ...] | None = None) -> dict[str, Any]:
    names = list(properties) if required is None else list(required)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
