"""From token ids to unit vectors: the tokenizer's part, both engines, and the choice between them."""
