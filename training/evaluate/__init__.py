"""Quality: MTEB's protocols over any function from texts to vectors."""
