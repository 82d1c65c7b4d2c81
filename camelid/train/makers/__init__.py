"""Stages that write what they learn from: answers of a model, kept line by line, so that a kill costs little."""
