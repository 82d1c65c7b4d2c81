"""Batches become a better model."""
