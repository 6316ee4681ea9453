"""Folders of text files as passages: split, indexed, updated and searched."""
