"""`Embedder` and what it offers: streams, chunks, output types, micro-batches."""

from gte_sdk.runtime.tokens import TokenizedTexts

__all__ = ["TokenizedTexts"]
