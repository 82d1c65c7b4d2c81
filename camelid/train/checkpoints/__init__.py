"""Checkpoints of a run: written whole, found again, and gone on from."""
