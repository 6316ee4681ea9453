"""Swagger UI at /docs: the API to read and to try, from the files of swagger-ui-py, if that is installed.

Nothing is loaded from elsewhere. The package itself is not imported; it would bring a web framework's adapters.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

# Swagger UI sets styles in its elements; the rest is as strict as the page at /.
SWAGGER_HEADERS = {
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
MISSING = "GET /docs needs Swagger UI: pip install 'gte-sdk[swagger]', and start the server again"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gte serve: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body><div id="swagger-ui"></div></body>
</html>
"""
# Without validatorUrl it would send the document's address to swagger.io.
_START = 'SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null });\n'


class SwaggerFile(NamedTuple):
    media_type: str
    content: str | Path


def swagger_files() -> dict[str, SwaggerFile]:
    """What is at which path. Empty if swagger-ui-py is not installed."""
    package = importlib.util.find_spec("swagger_ui")
    if package is None or not package.submodule_search_locations:
        return {}
    static = Path(next(iter(package.submodule_search_locations))) / "static"
    return {
        "/docs": SwaggerFile("text/html", _PAGE),
        "/docs/start.js": SwaggerFile("text/javascript", _START),
        "/docs/swagger-ui.css": SwaggerFile("text/css", static / "swagger-ui.css"),
        "/docs/swagger-ui-bundle.js": SwaggerFile("text/javascript", static / "swagger-ui-bundle.js"),
    }
