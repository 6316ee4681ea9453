"""General Text Embeddings inside your application: offline, without PyTorch, fast on a CPU."""

__version__ = "0.1.0"
