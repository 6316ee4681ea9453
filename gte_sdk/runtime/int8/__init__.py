"""int8 weights: how they are made from float32 weights, where they are kept, and how they are read."""
