"""Encoders in PyTorch: pooling, files, and embedding with them."""
