"""A request that is not served, in the shape of OpenAI's errors: a status, a message, and the field at fault."""

import json
from collections.abc import Mapping

# The error types that OpenAI's clients know, by status; other statuses of the same class share them.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "service_unavailable"}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """Raised anywhere below a route. The application answers it."""

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


def error_json(status: int, message: str, code: str, param: str | None = None) -> bytes:
    """{"error": {"message", "type", "param", "code"}}, in ASCII: a message may quote a lone surrogate."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return json.dumps(content).encode("ascii")


def invalid(message: str, param: str | None, code: str = "invalid_value") -> Refusal:
    """422: JSON whose content is wrong."""
    return Refusal(422, message, code=code, param=param)
