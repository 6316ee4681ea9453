"""Compares the vectors that other clients compute from an exported directory."""
