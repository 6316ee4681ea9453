"""What int8 keeps of fp32: cosine, neighbours, STS, speed."""
