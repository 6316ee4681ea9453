"""`gte serve`: embeddings over HTTP by OpenAI's interface, with micro-batching, limits, metrics and a page to try it.

Imported only where a server runs; it needs the extra: pip install 'gte-sdk[serve]'.
"""

from gte_sdk.server.application import create_app
from gte_sdk.server.settings import Settings

__all__ = ["Settings", "create_app"]
