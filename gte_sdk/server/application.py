"""The Starlette application: which path leads where, the page's files, and every error in OpenAI's shape."""

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import gte_sdk
from gte_sdk.agents.sharing import TOOLS_PATH
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.server.http.gate import gate
from gte_sdk.server.http.refusal import Refusal, error_json
from gte_sdk.server.metrics import Metrics
from gte_sdk.server.openapi import openapi_document
from gte_sdk.server.requests import unknown_model
from gte_sdk.server.searches import Searches
from gte_sdk.server.service import Service
from gte_sdk.server.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_PAGE_HEADERS = {
    # Nothing from outside is loaded, nothing is sent outside, and no other site may frame the page.
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

# Swagger UI sets styles in its elements.
_SWAGGER_HEADERS = {
    **_PAGE_HEADERS,
    "content-security-policy": _PAGE_HEADERS["content-security-policy"] + "; style-src 'self' 'unsafe-inline'",
}


def create_app(
    embedder: Embedder,
    settings: Settings,
    indexes: Mapping[str, Path] | None = None,
    cache: Path | None = None,
    others: Mapping[str, Embedder] | None = None,
) -> "ASGIApp":
    """The server as an ASGI application, for uvicorn (connection.py) or any other ASGI server.

    Time-outs of headers and writes, and the bound on connections, are the ASGI server's business.

    embedder: the first model, which has the names of the settings.
    indexes: passage indexes of these models to search, by name.
    cache: where the indexes of folders lie that clients on the Unix socket search.
    others: further models by their names.
    """
    embedders = {settings.model_name: embedder, **(others or {})}
    metrics = Metrics({name: each.fingerprint for name, each in embedders.items()}, gte_sdk.__version__)
    service = Service(embedders, settings, metrics)
    searches = Searches(list(embedders.values()), settings, indexes or {}, cache)
    named = {**embedders, **dict.fromkeys(settings.aliases, embedder)}
    models = [_model_card(name, each, int(metrics.started)) for name, each in named.items()]
    dims = sorted({dim for each in embedders.values() for dim in each.dims}, reverse=True)
    vocabulary_size = max(each.vocabulary_size for each in embedders.values())
    document = openapi_document(settings, list(named), dims, vocabulary_size, tuple(indexes or ()))

    async def list_models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": models})

    async def one_model(request: Request) -> Response:
        name = request.path_params["model"]
        for model in models:
            if model["id"] == name:
                return JSONResponse(model)
        raise unknown_model(name, [model["id"] for model in models])

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": settings.model_name, "queued_texts": service.queued_texts})

    async def metrics_text(request: Request) -> Response:
        return PlainTextResponse(metrics.text(service.queued_texts), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        return JSONResponse(document)

    routes = [
        Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        Route("/v1/models", list_models),
        Route("/v1/models/{model:path}", one_model),
        Route("/rerank", service.rerank, methods=["POST"]),
        Route("/v1/rerank", service.rerank, methods=["POST"]),
        *([Route("/v1/search", searches.search, methods=["POST"])] if indexes else []),
        Route(TOOLS_PATH, searches.tools, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics_text),
        Route("/openapi.json", openapi),
        *(Route(path, _file(_PAGE / name, media_type)) for path, (name, media_type) in _PAGE_FILES.items()),
        *_swagger_routes(),
    ]
    handlers: Any = {Refusal: _answer_refusal, HTTPException: _answer_http_exception, 500: _answer_fault}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await searches.close()

    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False  # many clients send no body after a redirect; see gate.py
    return gate(app, settings, metrics, frozenset(route.path for route in routes))


def _swagger_routes() -> list[Route]:
    """Swagger UI at /docs: our page, and the files of swagger-ui-py, which need not be imported for that."""
    package = importlib.util.find_spec("swagger_ui")
    if package is None or not package.submodule_search_locations:
        return [Route("/docs", _no_swagger)]
    static = Path(next(iter(package.submodule_search_locations))) / "static"
    files = (
        ("/docs", _PAGE / "swagger.html", "text/html"),
        ("/docs/swagger.js", _PAGE / "swagger.js", "text/javascript"),
        ("/docs/swagger-ui-bundle.js", static / "swagger-ui-bundle.js", "text/javascript"),
        ("/docs/swagger-ui.css", static / "swagger-ui.css", "text/css"),
    )
    return [Route(path, _file(file, media_type, _SWAGGER_HEADERS)) for path, file, media_type in files]


async def _no_swagger(request: Request) -> Response:
    message = "GET /docs needs Swagger UI: pip install 'gte-sdk[swagger]', and start the server again"
    raise Refusal(404, message, code="not_found")


def _file(file: Path, media_type: str, headers: Mapping[str, str] = _PAGE_HEADERS) -> Any:
    async def answer(request: Request) -> Response:
        return Response(file.read_bytes(), media_type=media_type, headers=headers)

    return answer


def _model_card(name: str, embedder: Embedder, created: int) -> dict[str, Any]:
    card = {"id": name, "object": "model", "created": created, "owned_by": "gte-sdk"}
    return {**card, "dimensions": embedder.dim, "max_tokens": embedder.max_tokens, "fingerprint": embedder.fingerprint}


async def _answer_refusal(request: Request, refusal: Refusal) -> Response:
    return _error_response(refusal.status, refusal.message, refusal.code, refusal.param, refusal.headers)


async def _answer_http_exception(request: Request, error: HTTPException) -> Response:
    codes = {404: "not_found", 405: "method_not_allowed"}
    message = f"{request.method} {request.url.path[:80]}: {error.detail}"
    code = codes.get(error.status_code, "http_error")
    return _error_response(error.status_code, message, code, headers=error.headers)


async def _answer_fault(request: Request, error: Exception) -> Response:
    """A bug in the server: the log has the traceback, and the client learns only that there was one."""
    return _error_response(500, "the server failed on this request; its log says why", "server_error")


def _error_response(
    status: int, message: str, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(error_json(status, message, code, param), status, headers, "application/json")
