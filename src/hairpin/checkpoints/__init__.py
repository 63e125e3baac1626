"""Checkpoints: written whole or not at all, verified as they are read, rotated; for any loop."""
