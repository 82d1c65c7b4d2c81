"""Stages of a model's training, one file each; pretraining is the first."""
