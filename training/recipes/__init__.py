"""Recipes: what a training run may be told, and the runs that we describe."""
