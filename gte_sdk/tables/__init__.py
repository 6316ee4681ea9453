"""Rows of texts to files of vectors, resumable: tables in, NumPy and Parquet out."""
