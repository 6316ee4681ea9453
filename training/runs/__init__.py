"""What a run is made of: start, objective, optimizer, stages, checkpoints, log."""
