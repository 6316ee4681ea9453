"""A port for what has to be told one before it listens."""

import contextlib
import random
import socket


def free_port() -> int:
    """Below the ports that outgoing connections get, so that nobody takes it in between."""
    for port in random.sample(range(15_000, 32_000), 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
