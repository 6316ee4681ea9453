"""Bodies of requests: JSON in, checked plain values out, or a Refusal that names the field and the remedy.

What the OpenAPI document (openapi.py) allows is accepted here and nothing else. An unknown field is refused, since a
misspelt option must not be ignored.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from gte_sdk.server.http.json_body import read_json
from gte_sdk.server.http.refusal import Refusal, invalid
from gte_sdk.server.settings import Settings

INPUT_TYPES = ("query", "document")
ENCODING_FORMATS = ("float", "base64")


class EmbeddingsRequest(NamedTuple):
    model: str
    """As the request names it: a name or an alias."""
    texts: list[str]
    """The inputs, empty where they are token ids."""
    token_ids: list[list[int]]
    """The inputs as ids, empty where they are texts."""
    kind: str
    """Which of the model's prompts to use: "query", "document", or "plain" for none."""
    as_base64: bool
    dim: int


class RerankRequest(NamedTuple):
    model: str
    query: str
    documents: list[str]
    top_n: int
    """How many of the documents to return."""
    with_documents: bool


def parse_json(body: bytearray, settings: Settings) -> dict[str, Any]:
    """The object that a body holds, which it empties."""
    fault = None
    try:
        content = read_json(body, settings.max_inputs)
    except (ValueError, RecursionError) as error:
        fault = str(error)
    if fault is not None:  # raised out here: an error's context would keep what was read so far
        raise Refusal(400, f"the body is not JSON: {fault}", code="invalid_json")
    if not isinstance(content, dict):
        raise invalid(f"the body is {_described(content)}; give a JSON object", None)
    return content


def parse_embeddings(body: bytearray, settings: Settings, dims_of: Mapping[str, Sequence[int]]) -> EmbeddingsRequest:
    """`dims_of` has the widths of the vectors of each model, under all its names, the whole one first."""
    content = parse_json(body, settings)
    _check_fields(content, {"input", "model", "dimensions", "encoding_format", "user", "input_type"})
    model = _checked_model(content, tuple(dims_of))
    dims = dims_of[model]
    if "input" not in content:
        raise invalid("input is missing; give a text, a list of texts, or lists of token ids", "input", "missing")
    texts, token_ids = _inputs(content["input"], settings.max_inputs)
    dimensions = _optional_whole(content, "dimensions")
    if dimensions is not None and dimensions not in dims:
        trained = f"{model} was trained for {', '.join(map(str, dims))}"
        raise invalid(f"dimensions={dimensions}: {trained}; ask for one of these or leave it out", "dimensions")
    encoding = _choice(content, "encoding_format", ENCODING_FORMATS)
    kind = _choice(content, "input_type", INPUT_TYPES)
    user = content.get("user")
    if not isinstance(user, str | None):
        raise invalid(f"user is {_described(user)}; give a text or leave it out", "user")
    return EmbeddingsRequest(model, texts, token_ids, kind or "plain", encoding == "base64", dimensions or dims[0])


def parse_rerank(body: bytearray, settings: Settings, names: Sequence[str]) -> RerankRequest:
    content = parse_json(body, settings)
    _check_fields(content, {"query", "documents", "model", "top_n", "return_documents"})
    model = _checked_model(content, names)
    for name in ("query", "documents"):
        if name not in content:
            raise invalid(f"{name} is missing", name, "missing")
    query = _text(content["query"], "query")
    documents = content["documents"]
    if not isinstance(documents, list):
        raise invalid(f"documents is {_described(documents)}; give a list of texts", "documents")
    _check_count(documents, "documents", settings.max_inputs)
    texts = [_document(document, f"documents[{index}]") for index, document in enumerate(documents)]
    top_n = _optional_whole(content, "top_n")
    with_documents = content.get("return_documents")
    if not isinstance(with_documents, bool | None):
        raise invalid(f"return_documents is {_described(with_documents)}; give true or false", "return_documents")
    return RerankRequest(model, query, texts, min(top_n or len(texts), len(texts)), bool(with_documents))


def _inputs(value: Any, max_inputs: int) -> tuple[list[str], list[list[int]]]:
    """Texts or lists of token ids; one of the two lists is empty."""
    if isinstance(value, str):
        return [_text(value, "input")], []
    if not isinstance(value, list):
        raise invalid(f"input is {_described(value)}; give a text, a list of texts, or lists of token ids", "input")
    if value and isinstance(value[0], int | float):
        return [], [_ids(value, "input")]
    _check_count(value, "input", max_inputs)
    if isinstance(value[0], list):
        return [], [_ids(row, f"input[{index}]") for index, row in enumerate(value)]
    return [_text(text, f"input[{index}]") for index, text in enumerate(value)], []


def _check_count(values: list[Any], name: str, most: int) -> None:
    if not values:
        raise invalid(f"{name} is an empty list; give at least one", name, "empty")
    if len(values) > most:
        raise invalid(f"{name} has {len(values)} entries; one request takes at most {most}", name, "too_many_inputs")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{name} is {_described(value)}; give a text", name)
    if not value:
        raise invalid(f"{name} is an empty text; leave it out", name, "empty")
    return value


def _document(value: Any, name: str) -> str:
    if isinstance(value, dict):
        _check_fields(value, {"text"}, f"{name}.")
        value = value.get("text")
    return _text(value, name)


def _ids(row: Any, name: str) -> list[int]:
    if not isinstance(row, list):
        raise invalid(f"{name} is {_described(row)}; give a list of token ids, as the other inputs are", name)
    if not row:
        raise invalid(f"{name} is an empty list of token ids; leave it out", name, "empty")
    ids = []
    for index, value in enumerate(row):
        token = _whole(value)
        if token is None:
            raise invalid(f"{name}[{index}] is {_described(value)}; give a token id", name)
        ids.append(token)
    return ids


def _whole(value: Any) -> int | None:
    """A JSON number without a fraction as an int: 5 and 5.0 are the same to JSON. None for everything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _optional_whole(content: dict[str, Any], name: str) -> int | None:
    if content.get(name) is None:
        return None
    value = _whole(content[name])
    if value is None or value < 1:
        raise invalid(f"{name} is {_described(content[name])}; give an integer of at least 1", name)
    return value


def _check_fields(content: dict[str, Any], known: Collection[str], inside: str = "") -> None:
    """Refuses a field that is not known, unless it is null: many clients send null for every option that is not set."""
    for name, value in content.items():
        if name not in known and value is not None:
            message = f"{inside}{name[:80]!r} is not a field of this request; it has {sorted(known)}"
            raise invalid(message, inside + name[:80], "unknown_field")


def unknown_model(name: str, known: Sequence[str]) -> Refusal:
    """The answer to a request for a model that has none of these names."""
    has = f"this server has {', '.join(known)}, and gte serve --alias NAME gives it another name"
    message = f"the model {name[:80]!r} is not served here; {has}"
    return Refusal(404, message, code="model_not_found", param="model")


def _checked_model(content: dict[str, Any], known: Sequence[str]) -> str:
    if "model" not in content:
        raise invalid(f"model is missing; this server has {known[0]!r}", "model", "missing")
    name = _text(content["model"], "model")
    if name not in known:
        raise unknown_model(name, known)
    return name


def _choice(content: dict[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    """One of the choices. None for null, and for "", which languages without optional values send for none."""
    value = content.get(name)
    if value is None or value == "":
        return None
    if value not in choices:
        raise invalid(f"{name} is {_described(value)}; give one of {', '.join(choices)}", name)
    return str(value)


def _described(value: Any) -> str:
    """A JSON value as a message shows it: short, with its type where the value is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value!r}"[:80]
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"
