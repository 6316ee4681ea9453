"""`Embedder` and what it offers: streams, chunks, output types, micro-batches."""

from gte_sdk.runtime.tokens import WINDOW_TEXTS, TokenizedTexts

__all__ = ["WINDOW_TEXTS", "TokenizedTexts"]
