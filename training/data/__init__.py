"""Pairs: where they come from, how they are mixed into batches, and mined negatives."""
