"""The server's OpenAPI document: what requests.py accepts and service.py answers, for people and code generators."""

from collections.abc import Sequence
from typing import Any

import gte_sdk
from gte_sdk.agents.requests import MODES, MOST_GLOB_CHARACTERS, MOST_PASSAGES, MOST_QUERY_CHARACTERS
from gte_sdk.server.requests import ENCODING_FORMATS, INPUT_TYPES
from gte_sdk.server.settings import Settings

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
# What each status means, on every route that takes a body.
_REFUSALS = {
    400: "The body is not JSON.",
    404: "The model is not served here.",
    408: "The body did not arrive in time.",
    413: "The body has too many bytes.",
    415: "The content type is not application/json.",
    422: "A field is missing, unknown, of the wrong type, empty, or out of range.",
    429: "The queue is full; try again after Retry-After seconds.",
    503: "Too many connections are open; try again later.",
}


def openapi_document(
    settings: Settings, models: Sequence[str], dims: Sequence[int], vocabulary_size: int, indexes: Sequence[str]
) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of this server, with its models' names, its limits and its key."""
    refusals = {str(status): _error(text) for status, text in _REFUSALS.items()}
    guarded = {"403": _error("The Host header does not name this machine.")}
    if settings.api_key is not None:
        guarded = {"401": _error("The API key is missing or wrong.")}
    embeddings = _post("Embed texts", "createEmbedding", "EmbeddingsRequest", "Embeddings", {**refusals, **guarded})
    rerank = "Rank documents by the cosine of their vectors and the query's"
    text = {"text/plain": {"schema": {"type": "string"}}}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "gte serve",
            "version": gte_sdk.__version__,
            "description": "Text embeddings with the OpenAI API. Every error has OpenAI's format.",
        },
        "paths": {
            "/v1/embeddings": {"post": embeddings},
            "/rerank": {"post": _post(rerank, "rerank", "RerankRequest", "Ranking", {**refusals, **guarded})},
            "/v1/rerank": {"post": _post(rerank, "rerankV1", "RerankRequest", "Ranking", {**refusals, **guarded})},
            "/v1/models": {"get": _get("List the models", "listModels", _json_of("Models"), guarded)},
            "/v1/models/{model}": {
                "get": {
                    **_get(
                        "Describe one model", "retrieveModel", _json_of("Model"),
                        {**guarded, "404": _error("The model is not served here.")},
                    ),
                    "parameters": [{"name": "model", "in": "path", "required": True, "schema": _TEXT}],
                }
            },
            "/health": {"get": _get("Whether the server answers", "health", _json_of("Health"), {}, is_open=True)},
            "/metrics": {"get": _get("Counters for Prometheus", "metrics", text, guarded)},
        },
        "components": {"schemas": _schemas(settings, models, dims, vocabulary_size)},
    }  # fmt: skip
    if indexes:
        others = {"409": _error("The index is of another model."), "500": _error("The index is damaged.")}
        search = _post("Search a passage index", "search", "SearchRequest", "Found", {**refusals, **others, **guarded})
        document["paths"]["/v1/search"] = {"post": search}
        document["components"]["schemas"] |= _search_schemas(indexes)
    if settings.api_key is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _schemas(settings: Settings, models: Sequence[str], dims: Sequence[int], vocabulary_size: int) -> dict[str, Any]:
    model = {"type": "string", "enum": list(models)}
    ids = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": vocabulary_size - 1}, "minItems": 1}
    many = {"minItems": 1, "maxItems": settings.max_inputs}
    usage = _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT})
    card = {"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT, "dimensions": _COUNT}
    vector = {
        "oneOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string", "contentEncoding": "base64"}]
    }
    embedding = _object({"object": {"const": "embedding"}, "index": _COUNT, "embedding": vector})
    error = {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT}
    result = _object(
        {"index": _COUNT, "relevance_score": {"type": "number", "minimum": -1.0001, "maximum": 1.0001}},
        {"document": _object({"text": _TEXT})},
    )
    return {
        "EmbeddingsRequest": _request(
            {
                "model": model,
                "input": {
                    "description": "One or more texts, as text or as token ids of the model's own tokenizer.",
                    "anyOf": [
                        _TEXT,
                        {"type": "array", "items": _TEXT, **many},
                        ids,
                        {"type": "array", "items": ids, **many},
                    ],
                },
            },
            {
                "encoding_format": {
                    "enum": [*ENCODING_FORMATS, "", None],
                    "description": "base64 is little-endian float32.",
                },
                "dimensions": {
                    "enum": [*dims, None],
                    "description": "The numbers of dimensions that the model was trained for.",
                },
                "input_type": {
                    "enum": [*INPUT_TYPES, "", None],
                    "description": "Which of the model's prompts to put before each text.",
                },
                "user": {"type": ["string", "null"], "description": "Ignored."},
            },
        ),
        "Embeddings": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": embedding}, "model": _TEXT, "usage": usage}
        ),
        "RerankRequest": _request(
            {
                "model": model,
                "query": _TEXT,
                "documents": {"type": "array", "items": {"anyOf": [_TEXT, _request({"text": _TEXT})]}, **many},
            },
            {
                "top_n": {"type": ["integer", "null"], "minimum": 1},
                "return_documents": {"type": ["boolean", "null"]},
            },
        ),
        "Ranking": _object(
            {"object": {"const": "list"}, "model": _TEXT, "results": {"type": "array", "items": result}, "usage": usage}
        ),
        "Model": _object({**card, "max_tokens": _COUNT, "fingerprint": _TEXT}),
        "Models": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}
        ),
        "Health": _object({"status": {"const": "ok"}, "model": _TEXT, "queued_texts": _COUNT}),
        "Error": _object({"error": _object(error)}),
    }


def _search_schemas(indexes: Sequence[str]) -> dict[str, Any]:
    passage = {
        "path": _TEXT, "line": {"type": "integer", "minimum": 1}, "breadcrumb": {"type": "string"},
        "score": {"type": "number"}, "text": {"type": "string"}, "is_cut": {"type": "boolean"},
    }  # fmt: skip
    return {
        "SearchRequest": _request(
            {
                "index": {"type": "string", "enum": list(indexes)},
                "query": {"type": "string", "minLength": 1, "maxLength": MOST_QUERY_CHARACTERS, "pattern": r"\S"},
            },
            {
                "k": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_PASSAGES},
                "mode": {"enum": [*MODES, None], "description": "By meaning, by words, or by both, the default."},
                "min_score": {"type": ["number", "null"], "minimum": -1, "maximum": 1},
                "glob": {"type": ["string", "null"], "minLength": 1, "maxLength": MOST_GLOB_CHARACTERS},
            },
        ),
        "Found": _object(
            {"object": {"const": "list"}, "index": _TEXT, "data": {"type": "array", "items": _object(passage)}}
        ),
    }


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _request(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object in a request: unknown fields are allowed if they are null."""
    return {**_object(required, optional), "additionalProperties": {"type": "null"}}


def _json_of(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json_of("Error")}


def _post(summary: str, name: str, request: str, answer: str, refusals: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "requestBody": {"required": True, "content": _json_of(request)},
        "responses": {"200": {"description": "Done.", "content": _json_of(answer)}, **refusals},
    }


def _get(
    summary: str, name: str, content: dict[str, Any], refusals: dict[str, Any], is_open: bool = False
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": name,
        "responses": {"200": {"description": "Done.", "content": content}, **refusals},
    }
    if is_open:
        operation["security"] = []
    return operation
