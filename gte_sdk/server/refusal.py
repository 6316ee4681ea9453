"""A request that is not served, in the shape of OpenAI's errors: a status, a message, and the field at fault."""

from collections.abc import Mapping
from typing import Any

# The error types that OpenAI's clients know, by status; other statuses of the same class share them.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "service_unavailable"}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """Raised anywhere below a route, answered by the application."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


def error_content(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """{"error": {"message", "type", "param", "code"}}"""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None, code: str = "invalid_value") -> Refusal:
    """422: JSON whose content is wrong."""
    return Refusal(422, message, code=code, param=param)
