"""Encoders in PyTorch: their modules with pooling, their files, and how to embed texts with them."""
