"""Folders of text files as passages in a store that is kept current and searched."""
