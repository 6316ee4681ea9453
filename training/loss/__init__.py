"""The contrastive losses, and how they are computed over processes and in chunks."""
