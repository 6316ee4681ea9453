"""GTE's multi-stage contrastive recipe in PyTorch: pairs -> mixture -> encoder -> loss -> checkpoint.

It runs from a checkout with the `train` extra. Start reading at training/train.py, from top to bottom.
"""
