"""From vectors to the nearest rows: exact top-k, `Index` and its file."""

from gte_sdk.search.index import Index, SearchResult
from gte_sdk.search.top_k import TopK, top_k_cosine

__all__ = ["Index", "SearchResult", "TopK", "top_k_cosine"]
