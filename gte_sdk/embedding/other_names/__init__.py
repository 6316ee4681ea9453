"""The names of other libraries for what an Embedder does."""
