"""Tables of texts to files of vectors: reading, writing, and continuing an interrupted run."""
