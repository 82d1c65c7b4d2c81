"""Whole answers in micro-batches, and what a frozen model says of them."""
