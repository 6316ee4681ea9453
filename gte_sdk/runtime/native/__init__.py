"""The native engine: from the files of a model to weights, from weights to the C++ encoder, and its vectors."""
