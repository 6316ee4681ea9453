"""`Embedder` and what it offers: streams, chunks, output types, micro-batches."""
