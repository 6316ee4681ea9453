"""The parts of a run: its start, objective, optimizer, stages, checkpoints and log."""
