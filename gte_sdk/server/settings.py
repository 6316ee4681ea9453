"""What a server is told when it starts: names, the key, and the limits that its documentation states.

The limits bound memory and waiting time: bodies that are read, texts that wait, connections that are open.
"""

from dataclasses import dataclass

from gte_sdk.errors import InputError
from gte_sdk.server.http.cors import is_origin

# OpenAI's own bound on the inputs of one request.
MAX_INPUTS = 2048


@dataclass(frozen=True)
class Settings:
    model_name: str
    """What requests call the model, and what /v1/models lists first."""
    aliases: tuple[str, ...] = ()
    """Further names under which requests may ask for the same model."""
    api_key: str | None = None
    """The bearer token that requests must carry; None asks for none."""
    loopback_only: bool = True
    """Whether only this machine can connect; without a key the Host header must then name this machine."""
    trusts_unix_socket: bool = False
    """Whether a Unix socket of this server is open to its own user alone (`unix_socket` in http/listening.py). Requests
    on it then need no key, and may search any folder of the user. Never for a socket that a proxy can open."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may read the answers, such as "https://app.example.com"; "*" is any."""
    micro_batching: bool = True
    """Whether texts of requests that wait at the same time are embedded together."""
    truncate: bool = True
    """Whether a text that is longer than the model reads is cut and reported, or refused."""
    max_body_bytes: int = 8 * 2**20
    max_held_bytes: int = 64 * 2**20
    """Bodies of all requests in progress, and vectors that are not sent yet, together."""
    max_inputs: int = MAX_INPUTS
    """Texts of one request."""
    max_queued_texts: int = 2 * MAX_INPUTS
    """Texts of all requests that wait for the model."""
    max_connections: int = 1024
    header_seconds: float = 10.0
    """From the opened connection, or the first byte of its next request, to the end of the header."""
    body_seconds: float = 30.0
    """From the end of the header to the end of the body."""
    write_seconds: float = 60.0
    """How long a client may leave an answer unread."""
    idle_seconds: int = 30
    """How long a connection stays open between two requests."""
    drain_seconds: float = 1.0
    """How long a client that is refused while it sends its body is read on, so that it sees the answer."""
    stop_seconds: int = 60
    """How long a server that was told to stop works on what it had accepted."""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_inputs", "max_connections", "header_seconds", "body_seconds"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}={getattr(self, name)}; it must be above 0")
        if self.max_queued_texts < self.max_inputs:
            raise InputError(
                f"max_queued_texts={self.max_queued_texts} is below max_inputs={self.max_inputs}: "
                "the largest request could never be accepted"
            )
        if self.max_held_bytes < self.max_body_bytes:
            raise InputError(
                f"max_held_bytes={self.max_held_bytes} is below max_body_bytes={self.max_body_bytes}: "
                "the largest request could never be accepted"
            )
        for origin in self.cors_origins:
            if not is_origin(origin):
                raise InputError(f"{origin!r} is not the origin of a web page; give one like https://app.example.com")
        if self.api_key is not None and (not self.api_key.strip() or not self.api_key.isascii()):
            raise InputError("the API key is empty or holds characters other than ASCII")
