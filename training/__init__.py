"""GTE's multi-stage contrastive recipe in PyTorch: pairs -> mixture -> encoder -> loss -> checkpoint.

Runs from a checkout with the `train` extra; the main path is training/train.py, read top to bottom.
"""
