"""Adapters: the Embedder in the shape that other tools expect, one module a tool.

Importing this package imports none of them. A module imports its tool when it is imported itself, and says which pip
command brings it where it is missing.
"""
